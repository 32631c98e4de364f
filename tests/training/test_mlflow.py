"""What a tracked run leaves in MLflow."""

import math
import signal

import pytest
from mlflow import MlflowClient
from training_helpers import SITES, Stopped, hand_written, trial_of
from training_helpers import train as train_only

from redline.training.checkpoints import CHECKPOINT
from redline.training.outbox import drain
from redline.training.run import run


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Overrides for one store for all: a fresh one takes MLflow seconds to make."""
    folder = tmp_path_factory.mktemp("mlflow")
    return {
        "uri": f"sqlite:///{folder / 'mlflow.db'}",
        "overrides": [
            "tracker=mlflow",
            f"tracker.mlflow.tracking_uri=sqlite:///{folder / 'mlflow.db'}",
            f"tracker.mlflow.artifact_location={folder / 'artifacts'}",
            f"tracker.mlflow.outbox={folder / 'outbox'}",
            # The sender gives way to whatever else the machine does.
            "tracker.mlflow.send_timeout=600",
        ],
    }


@pytest.fixture(scope="session")
def client(store):
    return MlflowClient(store["uri"])


def train(cfg, directory, **more):
    """As in `training_helpers`, and wait until MLflow has all of it."""
    try:
        return train_only(cfg, directory, **more)
    finally:
        assert drain(cfg.tracker, 600) is None


def history(client, run_id, key):
    """(step, value) of every point, in order of step."""
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, key))


def newest(client, experiment):
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    return client.search_runs([experiment_id], order_by=["attributes.start_time DESC"])[0]


def test_a_runs_curves_are_those_of_the_hand_written_loop(run_cfg, store, client, tmp_path):
    cfg = run_cfg(*store["overrides"], "norm=qkv", "lr=0.003", "monitor.every=5")
    train(cfg, tmp_path, search="curves")
    run_id, reference = newest(client, "curves").info.run_id, hand_written(cfg)
    every_step = list(range(12))
    for key in ("loss", "grad_norm"):
        points = history(client, run_id, f"train/{key}")
        assert [step for step, _ in points] == every_step
        assert [value for _, value in points] == pytest.approx(reference[key], rel=1e-4)
    names = {f"norm/{site}/layer_{layer:02d}" for site in SITES for layer in range(2)}
    logged = set(client.get_run(run_id).data.metrics)
    assert {name for name in logged if name.startswith("norm/")} == names
    for name in names:
        points = history(client, run_id, name)
        assert [step for step, _ in points] == [0, 5, 10]
        expected = [reference["norms"][step][name] for step in (0, 5, 10)]
        assert [value for _, value in points] == pytest.approx(expected, rel=1e-4)
    [(_, loss)], [(_, perplexity)] = (history(client, run_id, f"val/{key}") for key in ("loss", "perplexity"))
    assert loss == pytest.approx(reference["val_loss"], rel=1e-5)
    assert perplexity == pytest.approx(math.exp(reference["val_loss"]), rel=1e-4)
    assert not [name for name in logged if name.endswith("non_finite")]

    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    tags = {"norm": "any", "lr": "0.003", "seed": "0", "precision": "fp32", "step": "11", "spikes": "0"}
    diverged = reference["val_loss"] >= reference["unigram_entropy"]
    tags |= {"verdict": "diverged" if diverged else "stable", "reason": "no_learning" if diverged else ""}
    assert {key: run.data.tags[key] for key in tags} == tags
    params = {"lr": "0.003", "model/width": "32", "trainer/precision": "fp32", "schedule/warmup_steps": "5"}
    assert {key: run.data.params[key] for key in params} == params


def test_a_divergence_is_flagged_and_named(run_cfg, store, client, tmp_path):
    outcome, losses = train(run_cfg(*store["overrides"], "lr=1e30"), tmp_path, search="diverged")
    assert outcome.reason == "non_finite"
    run = newest(client, "diverged")
    flags = history(client, run.info.run_id, "train/loss/non_finite")
    assert flags == [(step, 1.0) for step, loss in losses.items() if not math.isfinite(loss)]
    assert len(history(client, run.info.run_id, "train/loss")) == len(losses)
    tags = {"verdict": "diverged", "reason": "non_finite", "step": str(outcome.step)}
    assert {key: run.data.tags[key] for key in tags} == tags
    assert run.info.status == "FINISHED"


def test_a_crashed_run_is_marked_failed_keeps_its_curve_and_goes_on_in_place(
    run_cfg, store, client, tmp_path
):
    cfg = run_cfg(*store["overrides"])
    with pytest.raises(Stopped):
        train(cfg, tmp_path, stop_at=6, search="crashed")
    crashed = newest(client, "crashed")
    assert crashed.info.status == "FAILED"
    assert "verdict" not in crashed.data.tags
    assert [step for step, _ in history(client, crashed.info.run_id, "train/loss")] == list(range(7))
    train(cfg, tmp_path, search="crashed")
    resumed = newest(client, "crashed")
    assert resumed.info.run_id == crashed.info.run_id
    points = set(history(client, resumed.info.run_id, "train/loss"))
    assert sorted(step for step, _ in points) == list(range(12))  # a step twice has one value
    assert resumed.info.status == "FINISHED"


def test_a_named_checkpoint_can_be_gone_on_from_with_more_steps(run_cfg, store, client, tmp_path):
    _first, _ = train(run_cfg(*store["overrides"], "schedule=constant"), tmp_path / "first", search="resumed")
    cfg = run_cfg(*store["overrides"], "schedule=constant", "trainer.max_steps=16")
    cfg.trainer.resume = str(tmp_path / "first" / CHECKPOINT)
    outcome, losses = train(cfg, tmp_path / "second", search="resumed")
    assert (outcome.step, sorted(losses)) == (15, [12, 13, 14, 15])
    assert newest(client, "resumed").info.status == "FINISHED"


def test_a_run_that_is_interrupted_is_marked_killed(run_cfg, store, client, tmp_path, monkeypatch):
    def interrupt(progress):
        raise KeyboardInterrupt

    cfg = run_cfg(*store["overrides"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # Lightning would have us ignore Ctrl-C
    with pytest.raises(KeyboardInterrupt):
        run(cfg, trial_of(cfg, tmp_path, interrupt, search="interrupted"))
    assert drain(cfg.tracker, 600) is None
    assert newest(client, "interrupted").info.status == "KILLED"
