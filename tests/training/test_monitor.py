"""The callback: when it reads, to whom it gives, and that nothing is lost."""

import os
from collections import defaultdict
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.loggers.logger import DummyLogger
from training_helpers import ROOT, SITES, Stopped, train

from redline.config import register
from redline.monitor import LearningRate, Memory, Monitor, OutputNorm, Tap, Throughput, build_monitor
from redline.training import run as run_module
from redline.training import tracked as tracked_module
from redline.training.trackers import Trackers


class Counting(Tap):
    """Gives the step's number, by way of the device and without."""

    def before_update(self, step):
        self.values["number"] = torch.tensor(float(step.number))
        self.arrays["picture"] = torch.full((2, 3), float(step.number))

    def after_update(self, step):
        self.values["tokens"] = step.tokens


class Keeping(DummyLogger):
    """Metrics by step; with ``arrays`` those too."""

    def __init__(self):
        super().__init__()
        self.seen = defaultdict(dict)

    def log_metrics(self, metrics, step=None):
        self.seen[step].update(metrics)

    def __getattr__(self, name):
        raise AttributeError(name)

    def set_tags(self, tags):
        pass

    def log_hyperparams(self, *args):
        pass


class KeepingArrays(Keeping):
    def log_arrays(self, arrays, step):
        self.seen[step].update(arrays)


@pytest.fixture
def fit(run_cfg, tmp_path, monkeypatch):
    """Train with taps: the logger's metrics by step, the subscriber's, and how it ended."""

    def fit(taps, every, *overrides, stop_at=None, logger=Keeping):
        monitor, kept, told = Monitor(taps, every), logger(), []
        monitor.subscribe(lambda step, values: told.append((step, values)))
        monkeypatch.setattr(run_module, "build_monitor", lambda cfg: monitor)
        monkeypatch.setattr(tracked_module, "build_trackers", lambda spec, run: Trackers([kept]))
        with pytest.raises(Stopped) if stop_at else nullcontext():
            train(run_cfg(*overrides), tmp_path, stop_at)
        return kept.seen, told

    return fit


def read_steps(seen, name="number"):
    return sorted(step for step, values in seen.items() if name in values)


@pytest.mark.parametrize("every", [1, 5, 11])
def test_every_so_many_steps_and_the_last_reading_is_not_lost(fit, every):
    seen, told = fit({"count": Counting()}, every)
    assert read_steps(seen) == list(range(0, 12, every))
    assert all(seen[step]["number"] == step for step in read_steps(seen))
    assert {seen[step]["tokens"] for step in read_steps(seen)} == {4 * 16}
    assert told == [(step, {"number": step, "tokens": 64}) for step in range(0, 12, every)]


def test_taps_have_cadences_of_their_own(fit):
    often, seldom = Counting(), OutputNorm(["fc2"], ["norm"])
    often.every, seldom.every = 3, 4
    seen, _ = fit({"often": often, "seldom": seldom}, 100)
    assert read_steps(seen) == [0, 3, 6, 9]
    assert read_steps(seen, "norm/fc2/layer_01") == [0, 4, 8]
    assert all(type(value) is float for value in seen[4].values())


def test_a_run_that_dies_and_goes_on_has_read_every_step(fit):
    """The checkpoint of step 8 is written before the reading of step 7 would be looked at."""
    first, _ = fit({"count": Counting()}, 1, stop_at=8)
    second, _ = fit({"count": Counting()}, 1)
    assert read_steps(first)[:8] == list(range(8))
    assert read_steps(second) == [8, 9, 10, 11]


def test_the_reading_in_flight_when_a_run_dies_is_not_lost(fit):
    seen, _ = fit({"count": Counting()}, 6, stop_at=5)  # judged while step 6 is in flight
    assert read_steps(seen) in ([0], [0, 6])
    seen, told = fit({"count": Counting()}, 1, stop_at=10)
    assert read_steps(seen)[-1] >= 10
    assert told[-1][0] == read_steps(seen)[-1]


def test_arrays_go_to_loggers_that_take_them(fit):
    seen, told = fit({"count": Counting()}, 6, logger=KeepingArrays)
    assert read_steps(seen, "picture") == [0, 6]
    np.testing.assert_array_equal(seen[6]["picture"], np.full((2, 3), 6.0))
    assert "picture" not in told[-1][1]
    assert not read_steps(fit({"count": Counting()}, 6)[0], "picture")


def test_learning_rate_and_pace(fit, monkeypatch):
    taps = {"lr": LearningRate(), "pace": Throughput(), "memory": Memory()}
    clock = iter(range(0, 100, 2))
    monkeypatch.setattr("redline.monitor.throughput.time.perf_counter", lambda: float(next(clock)))
    seen, _ = fit(taps, 4, "lr=0.5", "schedule.warmup_steps=5")
    assert [seen[step]["train/lr"] for step in (0, 4)] == pytest.approx([0.1, 0.5])
    assert seen[8]["train/lr"] < 0.5
    assert "train/tokens_per_second" not in seen[0]
    assert [seen[step]["train/tokens_per_second"] for step in (4, 8)] == [64 * 4 / 2] * 2
    assert 0.1 < seen[8]["train/memory_gib"] < 100


OWN_TAP = """
from redline.monitor import Tap

class LogitRms(Tap):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def attach(self, model):
        model.head.register_forward_hook(self.see)

    def see(self, module, inputs, logits_BTV):
        if self.active:
            self.values["rms/logits"] = self.factor * logits_BTV.detach().square().mean().sqrt()
"""
OWN_YAML = """
# How large the logits are.
logit_rms: {_target_: my_taps.LogitRms, every: 4, factor: 2.0}
"""


def test_a_tap_of_ones_own_is_one_class_and_one_file(fit, tmp_path, monkeypatch):
    (tmp_path / "my_taps.py").write_text(OWN_TAP)
    (tmp_path / "conf/monitor/taps").mkdir(parents=True)
    (tmp_path / "conf/monitor/taps/logit_rms.yaml").write_text(OWN_YAML)
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        searchpath = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
        cfg = compose("train", [searchpath, "monitor/taps=[output_norm,logit_rms]"])
    taps = build_monitor(cfg.monitor).taps
    assert list(taps) == ["output_norm", "logit_rms"]
    seen, _ = fit(taps, 6)
    assert read_steps(seen, "rms/logits") == [0, 4, 8]
    assert {name.split("/")[1] for name in seen[0] if name.startswith("norm/")} == set(SITES)
