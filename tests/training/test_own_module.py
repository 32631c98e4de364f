"""LightningModules that know nothing of this project are trained, judged, stopped and resumed."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import own_modules
import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig

from redline.errors import UserError
from redline.search import Facts, Trial
from redline.stability import Outcome, Progress, Watch, build_rules
from redline.training.own import OwnModule
from redline.training.trainable import task_of

Compose = Callable[..., DictConfig]


class Stopped(Exception):  # noqa: N818
    pass


@pytest.fixture
def own_cfg(composed: Compose) -> Compose:
    return lambda *overrides: composed(
        "task=lightning",
        "task.data._target_=own_modules.Points",
        "task.module._target_=own_modules.Groups",
        "tracker=none",
        "trainer.accelerator=cpu",
        "trainer.max_steps=20",
        "lr=0.1",
        *overrides,
    )


def trial_of(cfg: DictConfig, directory: Path, tell: Callable[[Progress], Any] = lambda it: None) -> Trial:
    rules = build_rules(cfg.divergence, object)
    tags = {"norm": "mine"}
    return Trial(
        cfg.lr, cfg.seed, directory, Facts(cfg.trainer.max_steps), watch=Watch(rules, tell), tags=tags
    )


def train(cfg: DictConfig, directory: Path, stop_at: int | None = None) -> tuple[Outcome, dict[int, float]]:
    """The outcome, and the loss that was reported of each step; dies after ``stop_at``."""
    losses: dict[int, float] = {}

    def tell(progress: Progress) -> None:
        losses[progress.step - 1] = progress.loss
        if progress.step - 1 == stop_at:
            raise Stopped

    trial = trial_of(cfg, directory, tell)
    return trial.outcome(task_of(cfg).train(trial)), losses


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> list[own_modules.Groups]:
    """Those that were made, the last one last."""
    made: list[own_modules.Groups] = []
    init = own_modules.Groups.__init__

    def remember(self: own_modules.Groups, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(own_modules.Groups, "__init__", remember)
    return made


def test_it_is_the_run_of_a_hand_written_loop(own_cfg: Compose, tmp_path: Path) -> None:
    """Its losses, its groups' LRs in proportion under its own schedule, and its score, turned round."""
    cfg = own_cfg(
        "task.data._target_=own_modules.AllAtOnce",
        "+task.module.dropout=0.0",
        "task.score=val_accuracy",
        "task.mode=max",
        "trainer.max_steps=6",
        "lr=1",
        "seed=3",
    )
    outcome, reported = train(cfg, tmp_path)

    L.seed_everything(3, verbose=False)
    net = own_modules.Groups(dropout=0.0).net
    (x, y), (val_x, val_y) = (own_modules.examples(*its).tensors for its in ((0, 96), (2, 64)))

    def accuracy() -> float:
        return (net(val_x).argmax(-1) == val_y).float().mean().item()

    groups = [{"params": net[0].parameters(), "lr": 1.0}, {"params": net[3].parameters(), "lr": 0.1}]
    optimizer, losses, floor = torch.optim.SGD(groups, momentum=0.9), [], accuracy()
    for _ in range(6):
        losses.append(loss := F.cross_entropy(net(x), y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= 0.5
    assert list(reported.values()) == pytest.approx([its.item() for its in losses], rel=1e-5)
    assert outcome.val_loss == pytest.approx(-accuracy())
    assert outcome.floor == pytest.approx(-floor)
    assert outcome.numbers == {"val_accuracy": -(outcome.val_loss or 0)}
    assert (outcome.reason, outcome.optimizer_steps) == (None, 6)


@pytest.mark.parametrize(
    ("words", "lrs"),
    [
        ([], [0.1, 0.01]),
        (["task.module._target_=own_modules.Named"], [0.1]),
        (["task.module._target_=own_modules.Named", "task.lr_argument=groups"], [0.1]),
        (
            [
                "task.module._target_=own_modules.Named",
                "+task.module.optimizer={_target_: torch.optim.AdamW, _partial_: true}",
                "task.lr_argument=optimizer.lr",
            ],
            [0.1],
        ),
        (["task.module._target_=own_modules.OneCycle"], [0.1]),
    ],
)
def test_the_lr_reaches_the_optimizer(
    own_cfg: Compose, tmp_path: Path, modules: list[own_modules.Groups], words: list[str], lrs: list[float]
) -> None:
    train(own_cfg("task.floor=1.4", *words), tmp_path)
    used = torch.tensor(modules[-1].used)
    assert used.max(0).values.tolist() == pytest.approx(lrs)


@pytest.mark.parametrize(("batch_size", "stops"), [(12, (4, 7, 8)), (26, (9,)), (96, (3,))])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(
    own_cfg: Compose, tmp_path: Path, batch_size: int, stops: tuple[int, ...]
) -> None:
    """Within an epoch, at its end, and after it; data that are shuffled and drawn anew; dropout."""
    words = "trainer.checkpoint_every=1", "trainer.max_steps=12", "+task.trainer.check_val_every_n_epoch=9"
    cfg = own_cfg(*words, f"+task.data.batch_size={batch_size}")
    whole, losses = train(cfg, tmp_path / "whole")
    for stop_at in stops:
        with pytest.raises(Stopped):
            train(cfg, tmp_path / f"{stop_at}", stop_at)
        again, rest = train(cfg, tmp_path / f"{stop_at}")
        assert again == whole
        assert rest == {step: loss for step, loss in losses.items() if step in rest}
        assert 0 < stop_at - 1 <= min(rest) <= stop_at + 1


def test_a_loss_that_explodes_is_diverged(own_cfg: Compose, tmp_path: Path) -> None:
    outcome, _ = train(own_cfg("lr=1e6"), tmp_path)
    assert outcome.reason in ("non_finite", "blow_up")
    assert outcome.val_loss is None


def test_a_run_that_learns_nothing_is_diverged(own_cfg: Compose, tmp_path: Path) -> None:
    """Its score is not below the floor, which the settings may say."""
    outcome, _ = train(own_cfg("task.floor=0.1"), tmp_path)
    assert (outcome.reason, outcome.floor) == ("no_learning", 0.1)


def test_a_steps_loss_is_the_mean_of_its_micro_batches(own_cfg: Compose, tmp_path: Path) -> None:
    words = ["task.data._target_=own_modules.AllAtOnce", "+task.module.dropout=0.0", "trainer.max_steps=3"]
    _, whole = train(own_cfg(*words), tmp_path / "1")
    _, parts = train(own_cfg(*words, "+task.data.parts=4", "trainer.accumulate=4"), tmp_path / "4")
    assert list(parts.values()) == pytest.approx(list(whole.values()), rel=1e-5)


def test_the_users_own_trainer_arguments_hold(own_cfg: Compose, tmp_path: Path) -> None:
    callback = (
        "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val_loss, patience: 0, min_delta: 9}"
    )
    cfg = own_cfg(f"+task.trainer.callbacks=[{callback}]", "+task.trainer.limit_val_batches=1")
    outcome, _ = train(cfg, tmp_path)
    assert outcome.optimizer_steps == 16  # two epochs
    assert not outcome.diverged


def test_it_is_tracked(own_cfg: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(own_cfg("tracker=csv", "monitor.every=5"), tmp_path)
    (log,) = tmp_path.rglob("metrics.csv")
    names = log.read_text().splitlines()[0].split(",")
    assert {"train/loss", "train/grad_norm", "train/lr", "norm/net/layer_00", "norm/net/layer_03"} <= {*names}
    assert "val_loss" in names


def test_one_with_a_site_map_may_have_any_tap(
    own_cfg: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    taps = ["monitor/taps=[output_norm,weight_norm]", "monitor.taps.output_norm.sites=[fc1,fc2]"]
    taps += ["monitor.taps.weight_norm.sites=[fc2]", "task.floor=9"]
    train(own_cfg("tracker=csv", "task.module._target_=own_modules.Mapped", *taps), tmp_path)
    (log,) = tmp_path.rglob("metrics.csv")
    names = log.read_text().splitlines()[0].split(",")
    assert {"norm/fc1/layer_00", "norm/fc2/layer_00", "weight_norm/fc2/layer_00"} <= {*names}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("task.module._target_=own_modules.Missing", "task.module._target_=own_modules.Missing: "),
        ("task.module._target_=torch.nn.Linear", "allowed: a subclass of lightning.LightningModule"),
        ("task.module._target_=null", "task.module._target_=null: allowed: a LightningModule"),
        ("+task.module.widht=3", "task.module.widht: unknown argument (did you mean width?); allowed: width"),
        ("+task.module.width=wide", "task.module.width=wide: allowed: a whole number"),
        ("task.module._target_=own_modules.NoLoss", "task.module: training_step returns no loss"),
        ("task.module._target_=own_modules.NoOptimizer", "task.lr_argument=groups: no optimizer"),
        ("task.module._target_=own_modules.Raises", "own_modules.py:"),
        ("task.data._target_=null", "task.module: `train_dataloader` must be implemented"),
        (
            "task.score=val_los",
            "task.score=val_los: validation_step logs no such number; allowed: val_accuracy",
        ),
        ("task.mode=up", "task.mode=up: allowed: min, max"),
        ("task.lr_argument=net.lr", "task.lr_argument=net.lr: task.module has no net"),
        ("+task.trainer.max_epochs=3", "task.trainer.max_epochs: allowed: trainer.max_steps"),
        ("+task.trainer.gradient_clip=3", "task.trainer.gradient_clip: unknown argument; allowed: "),
        ("task.warmup_steps=-1", "task.warmup_steps=-1: "),
        ("norm=qk", "norm: is not that of task.module"),
        ("optimizer=adamw", "optimizer: is not that of task.module"),
        ("loss=z_loss", "loss: is not that of task.module"),
        ("trainer=ddp", "trainer.strategy="),
        ("trainer.devices=2", "trainer.devices=2: allowed with task=lightning: 1"),
        ("trainer.compile=always", "trainer.compile=always: allowed with task=lightning: auto"),
        ("trainer.checkpoint_activations=true", "allowed with task=lightning: false"),
        ("trainer.precision=fp8", "trainer.precision=fp8: allowed with task=lightning"),
        ("tracker.mlflow.tracking_uri=5", "tracker.mlflow.tracking_uri"),
    ],
)
def test_a_users_mistake_is_one_line(own_cfg: Compose, words: str, said: str) -> None:
    cfg = own_cfg(words, *(["tracker=mlflow"] if "tracker" in words else []))
    with pytest.raises(UserError) as error:
        task_of(cfg).check_run()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_it_is_decides_which_search_it_is(own_cfg: Compose) -> None:
    def settings(*words: str) -> Any:
        return OwnModule(own_cfg(*words)).settings()

    assert settings() == settings("lr=0.3") == settings("seed=4") == settings("monitor.every=3")
    for words in (
        "+task.module.width=3",
        "task.mode=max",
        "trainer.max_steps=9",
        "+task.trainer.benchmark=true",
    ):
        assert settings(words) != settings()


def test_a_search_is_told_its_facts(own_cfg: Compose) -> None:
    facts = OwnModule(own_cfg("+task.module.width=3")).facts()
    assert (facts.max_steps, facts.parameters, facts.precision) == (20, 3 * 9 + 4 * 4, "fp32")
    assert facts.recipe["module.width"] == 3
    assert math.isclose(facts.decay_per_step(0.1) or 0, 0)
