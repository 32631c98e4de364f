"""How fast a run was, and what of its time went to data, taps and checkpoints."""

import csv

import pytest
import torch
from training_helpers import train

from redline import metrics
from redline.training import speed
from redline.training.build import build_model
from redline.training.plan.needs import flops_per_token
from redline.training.speed import StepClock, peak_flops, peak_here

NEXT = "[_TrainingEpochLoop].train_dataloader_next"
TAPS = "[Callback]Monitor.on_train_batch_end"


def test_the_shares_are_those_of_the_hosts_clock(monkeypatch):
    now, reads = 0.0, False
    monkeypatch.setattr(speed.time, "monotonic", lambda: now)
    clock = StepClock(2, lambda: reads)

    def takes(action, seconds):
        nonlocal now
        clock.start(action)
        now += seconds
        clock.stop(action)

    for step in range(6):
        reads = step % 4 == 0
        for part in range(2):
            takes(NEXT, 1.0)
            # The first two steps are slow, and count for nothing. The optimizer is in the last part.
            takes("run_training_batch", (100.0 if step < 2 else 8.0) + 3.0 * part + 2.0 * (reads and part))
        takes(TAPS, 0.5 if reads else 0.0)
        takes("save_checkpoint", 4.0 if step == 3 else 0.0)
        takes("of no interest", 1.0)
    found = clock.found(tokens=10.0, flops_per_token=7, peak=1000.0)
    # Four steps of two fetches and 19 s, and between them 3 times 1 s, 4 s, and for one reading 0.5 and 2 s.
    seconds = 4 * 21.0 + 4 * 1.0 + 4.0 + 0.5 * 1 + 2.0
    assert found[metrics.TOKENS_PER_SECOND] == pytest.approx(40 / seconds)
    assert found[metrics.FLOPS_PER_SECOND] == pytest.approx(280 / seconds)
    assert found[metrics.UTILISATION] == pytest.approx(0.28 / seconds)
    assert found[metrics.IN_DATA] == pytest.approx(8 / seconds)
    assert found[metrics.IN_TAPS] == pytest.approx(2.5 / seconds)
    assert found[metrics.IN_CHECKPOINTS] == pytest.approx(4 / seconds)


def test_two_steps_say_nothing():
    assert StepClock(1, lambda: False).found(1.0, 1, None) == {}


def test_a_run_logs_its_speed(run_cfg, tmp_path):
    cfg = run_cfg("tracker=csv", f"tracker.csv.save_dir={tmp_path}/csv", "monitor.every=3")
    train(cfg, tmp_path)
    (path,) = (tmp_path / "csv").rglob("metrics.csv")
    rows = list(csv.DictReader(path.open()))
    names = [name for name in rows[0] if name.startswith("speed/")]
    found = {name: float(its[name]) for its in rows for name in names if its[name]}
    assert set(found) == {
        metrics.TOKENS_PER_SECOND,
        metrics.FLOPS_PER_SECOND,
        metrics.IN_DATA,
        metrics.IN_TAPS,
        metrics.IN_CHECKPOINTS,
    }
    flops = flops_per_token(build_model(cfg), 16)
    assert found[metrics.FLOPS_PER_SECOND] == pytest.approx(flops * found[metrics.TOKENS_PER_SECOND])
    assert 0 < found[metrics.IN_DATA] < 1
    assert 0 < found[metrics.IN_TAPS] < 1
    assert 0 < found[metrics.IN_CHECKPOINTS] < 1


def test_a_peak_is_that_of_the_precisions_numbers():
    tflops = {"fp32": 1.0, "bf16": 10.0, "fp16": 10.0, "fp8": None}
    assert peak_flops(tflops, "bf16-true") == pytest.approx(1e13)
    assert peak_flops(tflops, "fp32") == pytest.approx(1e12)
    assert peak_flops(tflops, "fp8") is None


def test_a_peak_is_known_of_the_devices_in_conf_and_of_no_others(monkeypatch):
    assert peak_here(torch.device("cpu"), "fp32") is None
    for name, peak in (("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_here(torch.device("cuda", 0), "bf16-mixed") == peak
