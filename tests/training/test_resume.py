"""A run that died and went on from its checkpoint is the run that did not, to the bit."""

import itertools
import os
import signal
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from training_helpers import Stopped, train, trial_of

from redline.training.checkpoints import CHECKPOINT, StepSeed
from redline.training.module import LanguageModel
from redline.training.ranks.machine import canceller
from redline.training.run import run


def checkpoint(directory):
    return torch.load(directory / CHECKPOINT, weights_only=True)


def assert_same(a, b, where=""):
    """Equal to the bit, through dicts and lists."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{index}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.mark.parametrize(
    ("norm", "dropout", "precision", "stops"),
    [
        ("baseline", 0.0, "fp32", [6]),
        ("baseline", 0.2, "fp32", [5, 9]),
        ("qkv", 0.2, "bf16-mixed", [9]),
        ("qk_cap", 0.2, "fp32", [6]),
        ("sigma_reparam", 0.2, "fp32", [2, 6]),
        ("sigma_reparam", 0.0, "bf16-mixed", [9]),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(run_cfg, tmp_path, norm, dropout, precision, stops):
    cfg = run_cfg(
        f"norm={norm}", f"model.dropout={dropout}", f"trainer.precision={precision}",
        "trainer.allow_emulated=true", "lr=0.1",
        "divergence.no_return={rise:0.0,smoothing:0.5}",
    )  # fmt: skip
    whole, whole_losses = train(cfg, tmp_path / "whole")
    first_new = 0
    for stop in stops:
        with pytest.raises(Stopped):
            train(cfg, tmp_path / "parts", stop_at=stop)
        first_new = stop // 4 * 4
    resumed, resumed_losses = train(cfg, tmp_path / "parts")
    assert resumed == whole
    assert resumed_losses == {step: loss for step, loss in whole_losses.items() if step >= first_new}
    a, b = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_same(a[part], b[part], part)
    assert_same(a["callbacks"]["Report"], b["callbacks"]["Report"])


def test_a_batchs_randomness_depends_on_seed_step_micro_step_and_rank_alone():
    module = SimpleNamespace(device=torch.device("cpu"))

    def drawn(seed, step, micro_step, rank=0, parts=3):
        trainer = SimpleNamespace(global_step=step, global_rank=rank, accumulate_grad_batches=parts)
        StepSeed(seed).on_train_batch_start(trainer, module, None, step * parts + micro_step)
        return torch.rand(4).tolist()

    points = [*itertools.product((0, 1), (0, 1, 2), (0, 1, 2), (0, 1))]
    assert len({tuple(drawn(*point)) for point in points}) == len(points)
    assert drawn(1, 2, 1) == drawn(1, 2, 1) == drawn(1, 2, 1, parts=2)


def test_a_named_checkpoint_is_gone_on_from_in_another_directory(run_cfg, tmp_path):
    whole, _ = train(run_cfg(), tmp_path / "whole")
    with pytest.raises(Stopped):
        train(run_cfg(), tmp_path / "first", stop_at=6)
    cfg = run_cfg()
    cfg.trainer.resume = str(tmp_path / "first" / CHECKPOINT)
    resumed, losses = train(cfg, tmp_path / "second")
    assert resumed == whole
    assert min(losses) == 4


def test_a_cancelled_run_goes_on_from_the_step_that_it_reached(run_cfg, tmp_path):
    """By SIGTERM, as a cluster that preempts a job sends it. Checkpoints are due at steps 4, 8, 12."""
    whole, _ = train(run_cfg(), tmp_path / "whole")
    trial = trial_of(
        run_cfg(),
        tmp_path / "parts",
        lambda progress: os.kill(os.getpid(), signal.SIGTERM) if progress.step == 6 else None,
    )
    before = signal.signal(signal.SIGTERM, canceller(trial))
    try:
        run(run_cfg(), trial)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert trial.cancelled
    assert checkpoint(tmp_path / "parts")["global_step"] == 7  # a step's numbers are read one step late
    resumed, losses = train(run_cfg(), tmp_path / "parts")
    assert resumed == whole
    assert min(losses) == 7


def test_a_run_cancelled_in_its_validation_ends_at_once(run_cfg, tmp_path, monkeypatch):
    trial, seen, step = trial_of(run_cfg(), tmp_path), [], LanguageModel.validation_step

    def cancel(module, tokens_BS, batch_idx):
        seen.append(batch_idx)
        trial.watch.cancelled = True
        step(module, tokens_BS, batch_idx)

    monkeypatch.setattr(LanguageModel, "validation_step", cancel)
    with pytest.raises(KeyboardInterrupt):
        run(run_cfg(), trial)
    assert seen == [0]


def died_in_validation(cfg, directory, monkeypatch):
    """Killed after the last step, which left a checkpoint, and before the outcome was known."""
    with monkeypatch.context() as patch:
        patch.setattr(L.Trainer, "validate", lambda *args, **kwargs: (_ for _ in ()).throw(Stopped()))
        with pytest.raises(Stopped):
            train(cfg, directory)
    assert checkpoint(directory)["global_step"] == 12


def test_a_run_killed_in_its_validation_ends_as_it_would_have(run_cfg, tmp_path, monkeypatch):
    whole, _ = train(run_cfg(), tmp_path / "whole")
    died_in_validation(run_cfg(), tmp_path / "parts", monkeypatch)
    assert train(run_cfg(), tmp_path / "parts")[0] == whole


ONLINE = [
    "lr=10",
    "schedule.warmup_steps=2",
    "divergence.blow_up.patience=0.2",
    "divergence.blow_up.smoothing=0.0",
]
AT_END = ["divergence.no_return={rise:0.0,smoothing:0.0}"]


@pytest.mark.parametrize(
    ("keys", "reason"), [([], "no_learning"), (ONLINE, "blow_up"), (AT_END, "no_return")]
)
def test_a_run_that_ended_keeps_its_verdict_when_started_again(run_cfg, tmp_path, keys, reason):
    cfg = run_cfg("lr=1e-9", *keys)
    ended, _ = train(cfg, tmp_path)
    assert ended.reason == reason
    again, losses = train(cfg, tmp_path)
    assert again == ended
    assert losses == {}
