"""Trackers beside MLflow, and several at once."""

import csv
from importlib.util import find_spec

import pytest
import yaml
from mlflow import MlflowClient
from training_helpers import train

from redline.errors import UserError
from redline.training.check import check
from redline.training.outbox import drain


def in_csv(folder):
    """step -> training loss."""
    (path,) = folder.glob("csv/*/*/version_0/metrics.csv")
    with path.open() as file:
        return {
            int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]
        }


def test_several_trackers_are_told_the_same(run_cfg, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    cfg = run_cfg("tracker=[mlflow,csv,tensorboard]", "tracker.mlflow.send_timeout=600")
    cfg.tracker.csv.save_dir = "csv"
    outcome, losses = train(cfg, tmp_path / "run")
    assert in_csv(tmp_path) == losses
    (path,) = tmp_path.glob("csv/*/*/version_0/hparams.yaml")
    kept = yaml.safe_load(path.read_text())
    verdict = "diverged" if outcome.diverged else "stable"
    assert (kept["lr"], kept["verdict"], kept["norm"]) == (0.03, verdict, "any")

    (folder,) = tmp_path.glob("mlruns/tensorboard/*/*")
    board = EventAccumulator(str(folder))
    board.Reload()
    assert {event.step: event.value for event in board.Scalars("train/loss")} == pytest.approx(losses)

    assert drain(cfg.tracker) is None
    client = MlflowClient("sqlite:///mlruns/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("runs").experiment_id])
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert {point.step: point.value for point in points} == losses
    assert "val/loss" in board.Tags()["scalars"]


def test_one_without_mlflow_needs_no_outbox(run_cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = run_cfg("tracker=csv")
    cfg.tracker.csv.save_dir = "csv"
    outcome, losses = train(cfg, tmp_path / "run")
    assert in_csv(tmp_path) == losses
    assert outcome.page is None
    assert drain(cfg.tracker) is None
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_package_that_is_missing_is_named(run_cfg):
    with pytest.raises(UserError, match=r"tracker=wandb: needs the package wandb.*redline\[wandb\]"):
        check(run_cfg("tracker=[csv,wandb]"))
