"""A run on several devices is the run on one, and what one rank knows all know."""

import csv
import json
import logging
import math
import pickle
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from omegaconf import DictConfig
from rank_helpers import on_ranks
from test_same_run import Touch
from training_helpers import Stopped, trial_of

from redline.errors import UserError
from redline.monitor.reading import Reading
from redline.training.check import check
from redline.training.checkpoints import CHECKPOINT
from redline.training.checkpoints.io import is_whole, read_sharded
from redline.training.module import LanguageModel
from redline.training.run import run

NEAR = {"rel": 1e-4, "abs": 1e-5}
OF_THE_MACHINE = ("train/tokens_per_second", "train/memory_gib")
# What passes through the model is looked at in the last micro-batch, and logits in a rank's first sequences.
ALL_TAPS = ["monitor=full", "monitor.every=2", "monitor.taps.activation_histogram.every=2"]
ALL_STEPS = ["gradient=[adagc,zclip,clip_value,skip_outliers]", "gradient.adagc.warmup_steps=2"]
ALL_STEPS += ["gradient.zclip.warmup_steps=1", "gradient.clip_value.max_value=0.02"]


@dataclass
class Case:
    """A run on all ranks. ``after``: of a step it raises; ``at``: the rank and step of something bad."""

    cfg: DictConfig
    folder: Path
    after: int | None = None
    nan: tuple[int, int] | None = None
    cancel: tuple[int, int] | None = None
    full_disk: bool = False


@dataclass
class Seen:
    outcome: Any = None
    losses: dict[int, float] = field(default_factory=dict)
    cancelled: bool = False
    warnings: list[str] = field(default_factory=list)
    arrays: dict[str, list[float]] = field(default_factory=dict)


def seen(case: Case) -> Seen:
    """What one rank sees of a run."""
    found, rank = Seen(), dist.get_rank() if dist.is_initialized() else 0

    def tell(progress):
        step = progress.step - 1
        found.losses[step] = progress.loss
        if (rank, step) == case.cancel:
            trial.watch.cancelled = True
        if step == case.after:
            raise Stopped

    class Warnings(logging.Handler):
        def emit(self, record):
            found.warnings.append(record.getMessage())

    handler = Warnings(logging.WARNING)
    logging.getLogger("redline").addHandler(handler)
    trial = trial_of(case.cfg, case.folder, tell)
    unpack = Reading.unpack

    def unpacked(reading, numbers):
        values, arrays = unpack(reading, numbers)
        found.arrays |= {name: array.tolist() for name, array in arrays.items()}
        return values, arrays

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reading, "unpack", unpacked)
        if case.nan is not None and case.nan[0] == rank:
            patch.setattr(LanguageModel, "training_step", broken(LanguageModel.training_step, case.nan[1]))
        if case.full_disk and rank == 1:
            from torch.distributed.checkpoint.filesystem import FileSystem

            def full(*args):
                raise OSError(28, "No space left on device")

            patch.setattr(FileSystem, "create_stream", full)
        try:
            found.outcome = trial.outcome(run(case.cfg, trial))
        except Stopped:
            pass
        finally:
            logging.getLogger("redline").removeHandler(handler)
    found.cancelled = trial.cancelled
    return found


def broken(training_step, step):
    def broken_step(self, *args):
        loss = training_step(self, *args)
        if self.trainer.global_step == step:
            self.loss = self.loss * math.nan
            return loss * math.nan
        return loss

    return broken_step


def all_of(cases: dict[str, Case]) -> dict[str, Seen]:
    return {name: seen(case) for name, case in cases.items()}


def logged(folder: Path) -> dict[int, dict[str, float]]:
    (path,) = folder.glob("csv/**/metrics.csv")
    steps: dict[int, dict[str, float]] = {}
    for row in csv.DictReader(path.read_text().splitlines()):
        values = {name: float(value) for name, value in row.items() if value}
        steps.setdefault(int(values.pop("step")), {}).update(values)
    return steps


@pytest.fixture(scope="module")
def tiny(run_cfg):
    """A run of four steps."""
    return lambda *overrides: run_cfg(
        "model.width=16", "model.num_layers=2", "trainer.max_steps=4", "schedule.warmup_steps=2",
        "trainer.checkpoint_every=2", *overrides,
    )  # fmt: skip


KEYS = {
    "plain": [*ALL_TAPS, "loss=z_loss", "loss.z_loss.weight=0.1"],
    "steps": [
        *ALL_STEPS,
        "norm=qk_clip",
        "norm_strategy.qk_weight.tau=0.01",
        "model.positions=learned",
        "monitor.every=1",
    ],
    "parts": ["trainer.accumulate=2", "monitor=off"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def case(tiny, folder):
    def made(name, *keys, devices=1, **more):
        place = folder / name
        csv_keys = ["tracker=csv", f"tracker.csv.save_dir={place}/csv"]
        return Case(tiny(*keys, *csv_keys, f"trainer.devices={devices}"), place, **more)

    return made


@pytest.fixture(scope="module")
def one(case):
    """Of one process."""
    return all_of({name: case(f"one-{name}", *keys) for name, keys in KEYS.items()})


@pytest.fixture(scope="module")
def two(case, folder):
    """Of two."""
    cases = {}
    for strategy in ("ddp", "fsdp"):
        of = [f"trainer={strategy}"]
        for name, keys in KEYS.items():
            cases[f"{strategy}-{name}"] = case(f"two-{strategy}-{name}", *of, *keys, devices=2)
        dropped = [*of, "model.dropout=0.3"]
        cases[f"{strategy}-whole"] = case(f"two-{strategy}-whole", *dropped, devices=2)
        cases[f"{strategy}-stopped"] = case(f"two-{strategy}-again", *dropped, devices=2, after=2)
        cases[f"{strategy}-resumed"] = case(f"two-{strategy}-again", *dropped, devices=2)
        # Left as it is, for other numbers of ranks to go on from.
        cases[f"{strategy}-left"] = case(f"two-{strategy}-left", *of, devices=2, after=2)
    cases["nan"] = case("two-nan", "trainer=ddp", devices=2, nan=(1, 1))
    cases["cancel"] = case("two-cancel", "trainer=ddp", "trainer.max_steps=12", devices=2, cancel=(1, 1))
    cases["full disk"] = case("two-full", "trainer=fsdp", devices=2, full_disk=True)
    return on_ranks(2, all_of, cases)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", KEYS)
def test_two_ranks_have_the_numbers_of_one_process(one, two, name, strategy):
    first, second = (rank[f"{strategy}-{name}"] for rank in two)
    assert first == second
    assert first.losses == pytest.approx(one[name].losses, **NEAR)
    assert first.outcome.val_loss == pytest.approx(one[name].outcome.val_loss, **NEAR)
    assert first.outcome.interventions == one[name].outcome.interventions
    assert first.outcome.step == one[name].outcome.step
    if name == "steps":
        assert min(first.outcome.interventions.values()) >= 0 < first.outcome.interventions["zclip"]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["plain", "steps"])
def test_what_is_logged_is_of_all_ranks(one, two, folder, name, strategy):
    whole, shared = (logged(folder / its) for its in (f"one-{name}", f"two-{strategy}-{name}"))
    assert shared.keys() == whole.keys()
    for step, values in whole.items():
        assert shared[step].keys() == values.keys()
        for metric, value in values.items():
            if metric not in OF_THE_MACHINE and not metric.startswith("speed/"):
                assert shared[step][metric] == pytest.approx(value, rel=2e-3, abs=1e-5), (step, metric)
    counted, of_all = one[name].arrays, two[0][f"{strategy}-{name}"].arrays
    assert of_all.keys() == counted.keys()
    assert bool(counted) == (name == "plain")
    for name, counts in counted.items():
        assert sum(of_all[name]) == sum(counts), name
        assert of_all[name] == pytest.approx(counts, abs=3)  # one at the edge of a bin may be in the next


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_resumed_run_is_the_one_that_was_not_stopped_to_the_bit(two, folder, strategy):
    for rank in two:
        whole, resumed = rank[f"{strategy}-whole"], rank[f"{strategy}-resumed"]
        assert resumed.outcome == whole.outcome
        assert resumed.losses == {step: its for step, its in whole.losses.items() if step >= 2}
    a, b = (folder / f"two-{strategy}-{its}" / CHECKPOINT for its in ("whole", "again"))
    read = read_sharded if strategy == "fsdp" else lambda path: torch.load(path, weights_only=True)
    for name, value in read(a)["state_dict"].items():
        assert torch.equal(value, read(b)["state_dict"][name])


def test_dropout_is_the_same_with_either_strategy(two, one):
    losses = two[0]["ddp-whole"].losses
    assert losses == pytest.approx(two[0]["fsdp-whole"].losses, **NEAR)
    assert losses[0] != pytest.approx(one["parts"].losses[0], **NEAR), "nothing is dropped"


@pytest.fixture(scope="module")
def four(case, folder, two):
    """Of four, some of which go on from what two have left."""
    cases = {}
    for strategy in ("ddp", "fsdp"):
        shutil.copytree(folder / f"two-{strategy}-left", folder / f"four-{strategy}-left", symlinks=True)
        cases[f"{strategy}-left"] = case(f"four-{strategy}-left", f"trainer={strategy}", devices=4)
    cases["fsdp-steps"] = case("four-fsdp-steps", "trainer=fsdp", *KEYS["steps"], devices=4)
    return on_ranks(4, all_of, cases)


@pytest.fixture(scope="module")
def unbroken(case):
    return seen(case("one-unbroken"))


def test_four_ranks_have_the_numbers_of_one_process(one, four):
    for rank in four:
        assert rank["fsdp-steps"].losses == pytest.approx(one["steps"].losses, **NEAR)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_goes_on_with_another_number_of_ranks(case, folder, two, four, unbroken, strategy):
    shutil.copytree(folder / f"two-{strategy}-left", folder / f"one-{strategy}-left", symlinks=True)
    alone = seen(case(f"one-{strategy}-left"))
    for resumed in (alone, four[0][f"{strategy}-left"]):
        assert min(resumed.losses) == 2
        assert resumed.outcome.val_loss == pytest.approx(unbroken.outcome.val_loss, **NEAR)
        assert resumed.losses == pytest.approx({step: unbroken.losses[step] for step in (2, 3)}, **NEAR)


def test_one_ranks_nan_is_everyones(two):
    for rank in two:
        assert (rank["nan"].outcome.reason, rank["nan"].outcome.step) == ("non_finite", 1)
    assert two[0]["nan"].losses.keys() == two[1]["nan"].losses.keys() == {0, 1}


def test_what_one_rank_is_told_stops_all_in_the_same_step(two):
    assert [rank["cancel"].cancelled for rank in two] == [True, True]
    assert two[0]["cancel"].losses == two[1]["cancel"].losses
    assert max(two[0]["cancel"].losses) < 6


def test_a_full_disk_is_told_once_and_not_fatal(two, folder):
    assert [rank["full disk"].outcome.step for rank in two] == [3, 3]
    assert "cannot be written" in " ".join(two[0]["full disk"].warnings)
    assert two[1]["full disk"].warnings == []
    assert list((folder / "two-full").glob("last*")) == []


def test_only_the_newest_checkpoint_stays(two, folder):
    left = sorted(its.name for its in (folder / "two-fsdp-whole").glob("last*"))
    link = folder / "two-fsdp-whole" / CHECKPOINT
    assert left == [CHECKPOINT, link.readlink().name]
    assert is_whole(link)


@pytest.fixture
def copied(two, folder, tmp_path):
    shutil.copytree(folder / "two-fsdp-left", tmp_path / "run", symlinks=True)
    return tmp_path / "run"


@pytest.mark.parametrize("file", ["plain.pt", ".metadata", "__1_0.distcp", "digests.json"])
def test_a_damaged_folder_is_found_out(case, copied, caplog, file):
    content = (copied / CHECKPOINT / file).read_bytes()
    (copied / CHECKPOINT / file).write_bytes(content[: len(content) // 2])
    cfg = case("damaged").cfg
    begun = seen(Case(cfg, copied))
    assert min(begun.losses) == 0
    assert f"{copied / CHECKPOINT}: damaged; the run begins anew" in begun.warnings


@pytest.mark.parametrize("file", ["plain.pt", ".metadata"])
def test_a_crafted_folder_runs_no_code(case, copied, tmp_path, file):
    mark, place = tmp_path / "touched", copied / CHECKPOINT
    (place / file).write_bytes(pickle.dumps(Touch(mark)))
    digests = json.loads((place / "digests.json").read_text())
    from redline.training.checkpoints.io import _digest

    (place / "digests.json").write_text(json.dumps(digests | {file: _digest(place / file)}))
    with pytest.raises(UserError, match="weights and plain values"):
        seen(Case(case("crafted").cfg, copied))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["trainer=ddp", "trainer.devices=3"], r"^trainer\.devices=3: .*divisor of data\.batch_size=4"),
        (["trainer=ddp", "trainer.devices=2", "trainer.accumulate=4"], r"^trainer\.devices=2: .*8 equal"),
        (["trainer.devices=2"], r"^trainer\.devices=2, .*allowed: with trainer=ddp or trainer=fsdp"),
        (["trainer=fsdp", "norm=sigma_reparam"], r"^trainer\.strategy: norm_strategy\.linear .*trainer=ddp"),
        (["trainer=fsdp", "norm_layer=dyt"], r"^trainer\.strategy: .*alpha is a single number.*trainer=ddp"),
        (["trainer=fsdp", "optimizer=adafactor"], r"^optimizer: .*allowed: trainer=ddp"),
        (["trainer=ddp", "+trainer.strategy.x=1"], r"^trainer\.strategy\.x: unknown argument"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_training(tiny, keys, said):
    with pytest.raises(UserError, match=said):
        check(tiny(*keys))
    assert not dist.is_initialized()


def test_one_device_with_a_strategy_is_checked_and_trained(tiny, folder, unbroken):
    cfg = tiny("trainer=fsdp")
    check(cfg)
    assert seen(Case(cfg, folder / "alone")).losses == pytest.approx(unbroken.losses, **NEAR)
