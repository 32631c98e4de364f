"""A step in several micro-batches is the step of the whole batch."""

import csv

import pytest
import torch
from training_helpers import Stopped, train

from redline.errors import UserError
from redline.training.check import check
from redline.training.checkpoints import CHECKPOINT

NEAR = {"rel": 2e-4, "abs": 2e-5}


def seen(run_cfg, directory, *keys):
    """The outcome, and step -> what was logged at it."""
    tracker = ["tracker=csv", f"tracker.csv.save_dir={directory}/csv"]
    outcome, losses = train(run_cfg(*tracker, *keys), directory)
    (path,) = directory.glob("csv/**/metrics.csv")
    logged: dict = {}
    for row in csv.DictReader(path.read_text().splitlines()):
        values = {name: float(value) for name, value in row.items() if value}
        logged.setdefault(int(values.pop("step")), {}).update(values)
    return outcome, losses, logged


def test_a_steps_parts_have_the_losses_norms_and_weights_of_the_whole(run_cfg, tmp_path):
    keys = ["monitor=full", "monitor.every=3", "loss=z_loss", "loss.z_loss.weight=0.1"]
    keys += ["~monitor.taps.throughput", "~monitor.taps.memory"]
    whole, losses, logged = seen(run_cfg, tmp_path / "1", *keys)
    parts, losses_of_parts, logged_of_parts = seen(run_cfg, tmp_path / "4", *keys, "trainer.accumulate=4")
    assert losses_of_parts == pytest.approx(losses, **NEAR)
    assert losses_of_parts != losses, "the same program ran"
    assert (parts.optimizer_steps, parts.step, parts.reason) == (12, 11, whole.reason)
    assert parts.val_loss == pytest.approx(whole.val_loss, **NEAR)
    assert {step: its.keys() for step, its in logged.items()} == {
        step: its.keys() for step, its in logged_of_parts.items()
    }
    for step in range(12):
        for name, value in logged[step].items():
            # What passes through the model is that of the last micro-batch.
            if name.startswith(("train/", "loss/", "weight", "update", "interventions")):
                assert logged_of_parts[step][name] == pytest.approx(value, rel=5e-3, abs=1e-4), (step, name)
    a, b = (torch.load(tmp_path / its / CHECKPOINT, weights_only=True)["state_dict"] for its in "14")
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-2, atol=1e-3)


def test_a_run_resumed_between_micro_batches_is_the_one_that_was_not_stopped(run_cfg, tmp_path):
    cfg = run_cfg("trainer.accumulate=2", "model.dropout=0.2", "lr=0.1")
    whole, losses = train(cfg, tmp_path / "whole")
    for stop in (5, 6, 9):
        # It begins with a micro-batch at whose end a checkpoint would be due, were a step done.
        with pytest.raises(Stopped):
            train(cfg, tmp_path / "parts", stop_at=stop)
    resumed, rest = train(cfg, tmp_path / "parts")
    assert resumed == whole
    assert rest == {step: loss for step, loss in losses.items() if step >= 8}
    a, b = (torch.load(tmp_path / its / CHECKPOINT, weights_only=True) for its in ("whole", "parts"))
    for name, value in a["state_dict"].items():
        assert torch.equal(b["state_dict"][name], value)


@pytest.mark.parametrize("parts", [3, 8])
def test_parts_that_are_not_equal_are_refused(run_cfg, parts):
    with pytest.raises(UserError) as error:
        check(run_cfg(f"trainer.accumulate={parts}"))
    assert str(error.value) == f"trainer.accumulate={parts}: allowed: a divisor of data.batch_size=4"
