"""The forecaster at work in a run."""

import logging
from types import SimpleNamespace

import pytest
import torch
from training_helpers import Stopped, train, trial_of

from redline.errors import UserError
from redline.monitor import Monitor
from redline.stability import Forecaster
from redline.training.check import check
from redline.training.checkpoints import CHECKPOINT
from redline.training.early_warning import early_warning, readings
from redline.training.run import run

# Far above any edge: norms run away while the loss is still near its start.
HUGE = [
    "lr=3",
    "monitor.every=2",
    "divergence.forecaster.ramp=0",
    "divergence.forecaster.output_gain=0.005",
    "divergence.forecaster.max_logit=null",
]
HUGE += ["divergence.no_learning=null"]


def state(directory):
    return torch.load(directory / CHECKPOINT, weights_only=True)["callbacks"]


def test_a_warning_says_so_and_changes_nothing(run_cfg, tmp_path, caplog):
    silent, silent_losses = train(run_cfg(*HUGE, "divergence.forecast=off"), tmp_path / "off")
    assert "EarlyWarning" not in state(tmp_path / "off")
    with caplog.at_level(logging.WARNING):
        warned, losses = train(run_cfg(*HUGE, "divergence.forecast=warn"), tmp_path / "warn")
    assert (warned, losses) == (silent, silent_losses)
    [line] = [its.getMessage() for its in caplog.records if "expected to diverge" in its.getMessage()]
    step = state(tmp_path / "warn")["EarlyWarning"]["forecast"]["step"]
    assert line.startswith(f"step {step}: ")
    assert "output_gain" in line


def test_an_ended_run_is_diverged_by_forecast_at_its_step(run_cfg, tmp_path):
    train(run_cfg(*HUGE), tmp_path / "warn")
    step = state(tmp_path / "warn")["EarlyWarning"]["forecast"]["step"]
    assert step % 2 == 0
    outcome, losses = train(run_cfg(*HUGE, "divergence.forecast=end"), tmp_path / "end")
    assert (outcome.diverged, outcome.reason, outcome.step) == (True, "forecast", step)
    assert outcome.val_loss is None
    assert step in losses  # the step's own loss was judged and reported first
    assert step < outcome.optimizer_steps <= step + 2
    again, more = train(run_cfg(*HUGE, "divergence.forecast=end"), tmp_path / "end")
    assert (again, more) == (outcome, {})


def test_a_run_that_is_not_warned_of_is_not_ended(run_cfg, tmp_path):
    outcome, _ = train(run_cfg("norm=qk", "divergence.forecast=end", "divergence.no_learning=null"), tmp_path)
    assert (outcome.diverged, outcome.step) == (False, 11)


def test_a_rule_that_broke_by_then_gives_the_reason(run_cfg, tmp_path):
    cfg = run_cfg("lr=1e30", "monitor.every=1", "divergence.forecast=end")
    assert train(cfg, tmp_path)[0].reason == "non_finite"


@pytest.mark.parametrize("stop", [4, 6, 9])
@pytest.mark.parametrize("mode", ["warn", "end"])
def test_a_resumed_run_is_warned_of_once_and_ends_where_it_would_have(run_cfg, tmp_path, caplog, mode, stop):
    cfg = run_cfg(*HUGE, "lr=0.3", "divergence.forecaster.output_gain=0.003", f"divergence.forecast={mode}")
    whole, losses = train(cfg, tmp_path / "whole")
    warned_at = state(tmp_path / "whole")["EarlyWarning"]["forecast"]["step"]
    assert warned_at > 3
    if stop not in losses:
        return
    with caplog.at_level(logging.WARNING):
        with pytest.raises(Stopped):
            train(cfg, tmp_path / "parts", stop_at=stop)
        resumed, _ = train(cfg, tmp_path / "parts")
    assert resumed == whole
    assert state(tmp_path / "parts")["EarlyWarning"] == state(tmp_path / "whole")["EarlyWarning"]


def test_a_warning_of_before_the_checkpoint_is_not_given_again(run_cfg, tmp_path, caplog):
    cfg = run_cfg(*HUGE)
    with caplog.at_level(logging.WARNING):
        with pytest.raises(Stopped):
            train(cfg, tmp_path, stop_at=9)
        assert state(tmp_path)["EarlyWarning"]["forecast"] is not None
        train(cfg, tmp_path)
    assert len([its for its in caplog.records if "expected to diverge" in its.getMessage()]) == 1


def test_off_subscribes_nobody(run_cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(Monitor, "subscribe", lambda *_: pytest.fail("subscribed"))
    monkeypatch.setattr(Forecaster, "__init__", lambda *_: pytest.fail("made"))
    train(run_cfg("divergence.forecast=off", "trainer.max_steps=2"), tmp_path)


def test_the_progress_tells_of_a_warning(run_cfg, tmp_path):
    seen = []
    cfg = run_cfg(*HUGE)
    run(cfg, trial_of(cfg, tmp_path, seen.append))
    step = state(tmp_path)["EarlyWarning"]["forecast"]["step"]
    told = {its.step - 1: its.forecast_step for its in seen}
    assert told[0] is None
    assert told[11] == step


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (["divergence.forecast=on"], "divergence.forecast=on: allowed: off, warn, end"),
        (["divergence.forecast=end", "monitor=off"], "divergence.forecast=end: the monitor reads nothing"),
    ],
)
def test_a_mistake_is_found_before_training(run_cfg, override, said):
    with pytest.raises(UserError) as error:
        check(run_cfg(*override))
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("mode", ["warn", "end"])
def test_the_tracker_is_told_by_tags(run_cfg, mode):
    told, verdicts = [], []
    watch = SimpleNamespace(warn=lambda step, reason: verdicts.append((step, reason)))
    trial = SimpleNamespace(watch=watch)
    [warning] = early_warning(run_cfg(f"divergence.forecast={mode}"), Monitor({}, 1), trial, told.append)
    for step in range(0, 30, 10):
        warning.read(step, {"attention/max_logit": 2000.0 * step})
    assert told == [{"forecast_step": 10, "forecast_reason": "max_logit 2e+04, allowed 1.62e+03"}]
    assert verdicts == [(10, "forecast" if mode == "end" else None)]


def test_readings_are_the_largest_over_layers_of_what_enters_the_residual_stream():
    values = {
        "norm/proj/layer_00": 8.0, "norm/fc2/layer_01": 16.0, "norm/qkv/layer_00": 99.0,
        "attention/max_logit": 7.0, "attention/max_logit/layer_00/head_00": 99.0, "train/loss": 1.0,
    }  # fmt: skip
    assert readings(values, width=16) == {"output_gain": 4.0 / 16**2, "max_logit": 7.0}
    assert readings({"norm/qkv/layer_00": 99.0}, width=16) == {}
    for order in (1, -1):
        its = dict([("norm/fc2/layer_00", float("nan")), ("norm/fc2/layer_01", 1.0)][::order])
        assert readings(its, width=16) == {"output_gain": float("inf")}
