"""What a run's outcome says of the run."""

import math

import pytest
import torch
from training_helpers import Stopped, hand_written, train

from judge import judge_curve
from redline.errors import UserError
from redline.stability import BlowUp, NonFinite, NoReturn
from redline.training.check import check
from redline.training.checkpoints import CHECKPOINT
from redline.training.module import LanguageModel


def test_a_run_is_the_hand_written_loop(run_cfg, tmp_path):
    cfg = run_cfg("norm=qk_fc")
    outcome, losses = train(cfg, tmp_path)
    reference = hand_written(cfg)
    assert list(losses.values()) == pytest.approx(reference["loss"], rel=1e-5)
    assert outcome.val_loss == pytest.approx(reference["val_loss"], rel=1e-5)
    assert outcome.numbers["perplexity"] == pytest.approx(math.exp(reference["val_loss"]), rel=1e-4)
    assert (outcome.initial_loss, outcome.train_loss) == (losses[0], losses[11])
    assert (outcome.value, outcome.seed, outcome.page) == (cfg.lr, cfg.seed, None)
    assert (outcome.step, outcome.optimizer_steps) == (11, 12)
    weights = torch.load(tmp_path / CHECKPOINT, weights_only=True)["state_dict"]
    for name, value in reference["model"].state_dict().items():
        torch.testing.assert_close(weights[f"model.{name}"], value, rtol=1e-3, atol=1e-4)


def test_a_run_that_learns_is_stable(run_cfg, tmp_path):
    outcome, _ = train(run_cfg("norm=qk", "trainer.max_steps=60"), tmp_path)
    assert (outcome.diverged, outcome.reason, outcome.step) == (False, None, 59)


def test_a_run_that_learns_nothing_is_found_at_its_end(run_cfg, tmp_path):
    outcome, _ = train(run_cfg("lr=1e-9"), tmp_path)
    assert (outcome.diverged, outcome.reason) == (True, "no_learning")
    assert (outcome.step, outcome.optimizer_steps) == (11, 12)
    assert outcome.val_loss == pytest.approx(outcome.initial_loss, abs=0.2)


def test_a_blow_up_ends_the_run_at_once(run_cfg, tmp_path):
    cfg = run_cfg(
        "lr=10", "trainer.max_steps=40", "schedule.warmup_steps=2",
        "divergence.blow_up.patience=0.05", "divergence.blow_up.smoothing=0.0",
        "trainer.checkpoint_every=1000",
    )  # fmt: skip
    outcome, losses = train(cfg, tmp_path)
    verdict = judge_curve({"blow_up": BlowUp(2, 0.05, 0.0, 40)}, list(losses.values()), [0.0] * len(losses))
    assert (outcome.diverged, outcome.reason, outcome.step) == (True, "blow_up", verdict.step)
    assert list(losses) == list(range(verdict.step + 1))
    assert verdict.step < 10
    assert outcome.optimizer_steps == verdict.step + 2  # one step late
    assert (outcome.val_loss, outcome.numbers) == (None, {})


def test_a_loss_that_is_not_a_number_ends_the_run_at_once(run_cfg, tmp_path):
    outcome, losses = train(run_cfg("lr=1e30"), tmp_path)
    verdict = judge_curve({"non_finite": NonFinite()}, list(losses.values()), [0.0] * len(losses))
    assert (outcome.diverged, outcome.reason, outcome.step) == (True, "non_finite", verdict.step)
    assert verdict.step < 5
    assert not math.isfinite(outcome.train_loss)


@pytest.mark.parametrize("step", [3, 11])
def test_a_gradient_that_is_not_finite_is_seen_on_any_step(run_cfg, tmp_path, monkeypatch, step):
    clip = LanguageModel.configure_gradient_clipping

    def clip_and_break(self, *args, **kwargs):
        clip(self, *args, **kwargs)
        if self.global_step == step:
            self.grad_norm = torch.tensor(math.inf)

    monkeypatch.setattr(LanguageModel, "configure_gradient_clipping", clip_and_break)
    outcome, losses = train(run_cfg(), tmp_path)
    assert (outcome.reason, outcome.step, outcome.val_loss) == ("non_finite", step, None)
    assert all(math.isfinite(loss) for loss in losses.values())


def test_spikes_are_counted_and_a_rise_at_the_end_is_divergence(run_cfg, tmp_path):
    keys = "divergence.no_return={rise:0.0,patience:1.0,smoothing:0.0}"
    ended_up, counted = set(), 0
    for steps in (11, 12, 13, 14):
        rule = NoReturn(rise=0.0, patience=1.0, smoothing=0.0, max_steps=steps)
        cfg = run_cfg(keys, f"trainer.max_steps={steps}", "lr=0.003", "divergence.no_learning=null")
        outcome, losses = train(cfg, tmp_path / str(steps))
        verdict = judge_curve({"no_return": rule}, list(losses.values()), [0.0] * len(losses))
        assert outcome.spikes == rule.spikes
        assert outcome.reason == (verdict.reason if verdict else None)
        assert outcome.step == steps - 1
        ended_up.add(outcome.diverged)
        counted = max(counted, outcome.spikes)
    assert ended_up == {True, False}
    assert counted > 0


def test_a_crash_is_no_outcome(run_cfg, tmp_path):
    with pytest.raises(Stopped):
        train(run_cfg(), tmp_path, stop_at=2)


@pytest.mark.parametrize("keep", [True, False])
def test_the_last_checkpoint_is_kept_only_where_it_is_wanted(run_cfg, tmp_path, keep):
    train(run_cfg(f"trainer.keep_checkpoint={keep}"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ([CHECKPOINT] if keep else [])


def test_the_seed_decides_weights_and_batches(run_cfg, tmp_path):
    first, again, other = (
        train(run_cfg(f"seed={seed}", "trainer.max_steps=2", "schedule.warmup_steps=1"), tmp_path / name)[1]
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert first == again
    assert first[0] != other[0]
    assert first[1] != other[1]


@pytest.mark.parametrize("norm", ["baseline", "qkv", "sigma_reparam", "qk_cap", "soft_clip"])
def test_bf16_trains_near_fp32(run_cfg, tmp_path, norm):
    keys = [f"norm={norm}", "lr=0.003", "trainer.max_steps=6", "trainer.allow_emulated=true"]
    fp32, bf16 = (
        train(run_cfg(*keys, f"trainer.precision={precision}"), tmp_path / precision)[1]
        for precision in ("fp32", "bf16-mixed")
    )
    assert fp32 != bf16
    assert list(bf16.values()) == pytest.approx(list(fp32.values()), abs=0.1)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("lr=0", "lr=0"),
        ("lr=nan", "lr=nan"),
        ("trainer.max_steps=0", "trainer.max_steps=0"),
        ("model.dropout=1", "model.dropout=1"),
        ("gradient.clip.max_norm=0", "gradient.clip.max_norm=0"),
        ("model.num_heads=3", "model.width=32"),
        ("trainer.resume=nowhere.ckpt", "trainer.resume=nowhere.ckpt"),
    ],
)
def test_a_users_mistake_is_found_before_training(run_cfg, override, key):
    with pytest.raises(UserError) as error:
        check(run_cfg(override))
    assert str(error.value).startswith(key)
    assert "allowed" in str(error.value)
