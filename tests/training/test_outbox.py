"""Metrics wait on disk for an MLflow that is slow, restarts, loses answers or is gone; none is sent twice."""

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from filelock import FileLock
from mlflow import MlflowClient
from omegaconf import OmegaConf
from training_helpers import train

from mlflow_server import Network, Server
from ports import free_port
from redline.training.outbox import Outbox
from redline.training.outbox.sender import Sender
from redline.training.trackers import TrackedRun, build_trackers
from redline.training.trackers.environment import resolved

STEPS = list(range(12))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    server.wait()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def wire(server):
    network = Network(server.port)
    yield network
    network.close()


@pytest.fixture
def network(wire):
    yield wire
    wire.held, wire.cut, wire.lose = False, False, ""


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """One outbox for the runs that train: the process that sends for them takes seconds to start."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def client(server):
    return MlflowClient(f"http://127.0.0.1:{server.port}")


def tracked(folder, uri):
    """Overrides of a run whose metrics go to ``uri``."""
    return [
        "tracker=mlflow",
        f"tracker.mlflow.tracking_uri={uri}",
        f"tracker.mlflow.outbox={folder / 'outbox'}",
        "tracker.mlflow.send_every=0.1",
    ]


def sender(folder, uri):
    return Sender(
        outbox=str(folder / "outbox"),
        tracking_uri=uri,
        artifact_location=str(folder / "artifacts"),
        send_every=0.1,
    )


def logger(folder, uri, key="run", **tags):
    """As a trial of a search has it: somebody else sends."""
    spec = {
        "_target_": "redline.training.trackers.mlflow.MLFlowOutboxLogger",
        "tracking_uri": uri,
        "artifact_location": str(folder / "artifacts"),
        "outbox": str(folder / "outbox"),
        "send_every": 0.1,
        "send_timeout": 0.0,
    }
    run = TrackedRun(key=key, experiment=folder.name, name="qk lr=1", tags=tags, in_search=True)
    return build_trackers(OmegaConf.create({"mlflow": spec}), run)


def until(true, seconds=600):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def only_run(client, experiment):
    found = client.get_experiment_by_name(experiment)
    (run,) = client.search_runs([found.experiment_id])
    return run


def curve(client, run, key="train/loss"):
    """(step, value) of every point that is stored, as often as it is."""
    points = client.get_metric_history(run.info.run_id, key)
    return sorted((point.step, point.value) for point in points)


def is_complete(client, experiment, losses):
    run = only_run(client, experiment)
    assert curve(client, run) == sorted(losses.items())
    assert run.info.status == "FINISHED"
    return run


def test_a_server_that_does_not_answer_does_not_hold_up_training(run_cfg, network, client, place, tmp_path):
    network.held = True
    before, meanwhile = (network.requests, network.answers), []

    def under_way(progress):
        if progress.step == 6:
            until(lambda: network.requests > before[0])
        if progress.step == len(STEPS):
            meanwhile.append(network.answers - before[1])
            network.held = False

    cfg = run_cfg(*tracked(place, network.url))
    outcome, losses = train(cfg, tmp_path, experiment="slow", also=under_way)
    assert meanwhile == [0], "training waited for an answer"
    sender(place, network.url).drain(600)
    run = is_complete(client, "slow", losses)
    assert outcome.run_id in (None, run.info.run_id)


def test_one_that_restarts_gets_every_point_once(run_cfg, server, network, client, place, tmp_path):
    """It is killed in the middle of a run, and is there again some time after its end."""

    def meddle(progress):
        if progress.step == 6:
            until(
                lambda: any(parcel.state().run_id for parcel in Outbox(place / "outbox").parcels(network.url))
            )
            server.stop()

    cfg = run_cfg(*tracked(place, network.url))
    outcome, losses = train(cfg, tmp_path, experiment="restarted", also=meddle)
    assert list(losses) == STEPS
    server.start()
    server.wait()
    assert sender(place, network.url).drain(600) == 0
    run = is_complete(client, "restarted", losses)
    assert outcome.run_id == run.info.run_id


def test_one_that_is_gone_changes_nothing_and_gets_all_when_it_is_back(
    run_cfg, network, client, place, tmp_path, caplog
):
    untracked, expected = train(run_cfg(), tmp_path / "untracked")
    network.cut = True
    cfg = run_cfg(*tracked(place, network.url), "tracker.mlflow.send_timeout=600")
    outcome, losses = train(cfg, tmp_path / "run", experiment="gone")
    assert losses == expected
    assert replace(outcome, seconds=0) == replace(untracked, seconds=0)
    assert outcome.run_id is None
    said = [record.getMessage() for record in caplog.records]
    assert 1 <= len(said) <= 2  # when it was missed first, and at the end
    for line in said:
        assert "\n" not in line
        assert network.url in line
        assert "`make send` sends them" in line
    assert sender(place, network.url).drain(600) == 1
    network.cut = False
    assert sender(place, network.url).drain(600) == 0
    run = is_complete(client, "gone", losses)
    assert run.data.tags["run_key"] == outcome.run_key
    assert not Outbox(place / "outbox").parcels(network.url)


@pytest.mark.parametrize("lost", ["experiments/create", "runs/create", "runs/log-batch", "runs/update"])
def test_what_the_server_did_without_our_hearing_of_it_is_not_done_twice(network, client, tmp_path, lost):
    tracker = logger(tmp_path, network.url, search="s")
    tracker.log_hyperparams({"lr": 1.0})
    for step in STEPS:
        tracker.log_metrics({"train/loss": 0.5 + step}, step)
    tracker.end("FINISHED")
    network.lose = lost
    sender(tmp_path, network.url).drain(600)
    assert network.lose == ""
    assert sender(tmp_path, network.url).drain(600) == 0
    is_complete(client, tmp_path.name, {step: 0.5 + step for step in STEPS})


def test_what_mlflow_will_never_take_is_noted_and_left_out(network, client, tmp_path):
    tracker = logger(tmp_path, network.url)
    tracker.log_metrics({"train/loss": 1.0, "norm/§": 2.0, "val/loss": 3.0}, 0)
    tracker.end("FINISHED")
    assert sender(tmp_path, network.url).drain(600) == 0
    assert set(only_run(client, tmp_path.name).data.metrics) == {"train/loss", "val/loss"}
    noted = (tmp_path / "outbox" / "refused.txt").read_text()
    assert noted.count("\n") == 1
    assert "metric norm/§ at step 0" in noted


def test_what_is_not_finite_arrives_with_its_flag(network, client, tmp_path):
    tracker = logger(tmp_path, network.url)
    tracker.log_metrics({"train/loss": float("nan"), "train/grad_norm": float("inf")}, 3)
    tracker.end("FINISHED")
    sender(tmp_path, network.url).drain(600)
    run = only_run(client, tmp_path.name)
    for key in ("train/loss", "train/grad_norm"):
        assert curve(client, run, f"{key}/non_finite") == [(3, 1.0)]


def test_arrays_and_texts_become_artifacts(network, client, tmp_path):
    tracker = logger(tmp_path, network.url)
    arrays = {"weight/qkv/layer_00": np.arange(5), "weight/proj/layer_00": np.ones((2, 2))}
    tracker.log_arrays(arrays, 123)
    tracker.log_file("config.yaml", "lr: 1\n")
    tracker.end("FINISHED")
    sender(tmp_path, network.url).drain(600)
    run_id = only_run(client, tmp_path.name).info.run_id
    with np.load(client.download_artifacts(run_id, "histograms/step_000123.npz")) as stored:
        assert set(stored) == set(arrays)
        assert all((stored[name] == array).all() for name, array in arrays.items())
    with open(client.download_artifacts(run_id, "config.yaml")) as stored:
        assert stored.read() == "lr: 1\n"


def test_a_verdict_after_the_end_reaches_its_run_but_makes_none(network, client, tmp_path):
    tracker = logger(tmp_path, network.url, verdict="stable")
    tracker.end("FINISHED")
    sending = sender(tmp_path, network.url)
    sending.drain(600)
    for key in ("run", "one that never was"):
        sending.retag(key, tmp_path.name, {"verdict": "diverged"})
    assert sending.drain(600) == 0
    run = only_run(client, tmp_path.name)
    assert (run.data.tags["verdict"], run.info.status) == ("diverged", "FINISHED")


def test_no_password_is_kept_or_told(run_cfg, tmp_path, caplog):
    uri = f"http://me:se/cr@et@127.0.0.1:{free_port()}"
    cfg = run_cfg(*tracked(tmp_path, uri))
    tracker = logger(tmp_path, uri)
    tracker.log_file("config.yaml", str(resolved(cfg)))
    sending = sender(tmp_path, uri)
    assert not sending.step()
    assert sending.trouble is not None
    tracker.end("FAILED")
    kept = [path.read_bytes() for path in (tmp_path / "outbox").rglob("*") if path.is_file()]
    assert any(b"//***@127.0.0.1" in content for content in kept)
    assert not [content for content in kept if b"se/cr" in content or b"et@127" in content]
    assert "se/cr" not in sending.what_waits()


def test_what_a_killed_run_left_is_sent_by_the_next_which_goes_on_in_it(network, client, tmp_path):
    pid = os.fork()
    if pid == 0:
        tracker = logger(tmp_path, network.url)
        for step in STEPS[:7]:
            tracker.log_metrics({"train/loss": float(step)}, step)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert sender(tmp_path, network.url).drain(600) == 0
    run = only_run(client, tmp_path.name)
    assert run.info.status == "KILLED"
    assert [step for step, _ in curve(client, run)] == STEPS[:7]

    tracker = logger(tmp_path, network.url)
    for step in STEPS[7:]:
        tracker.log_metrics({"train/loss": float(step)}, step)
    sending = sender(tmp_path, network.url)
    sending.step()
    sending.step()
    assert only_run(client, tmp_path.name).info.status == "RUNNING"
    tracker.end("FINISHED")
    assert sending.drain(600) == 0
    is_complete(client, tmp_path.name, {step: float(step) for step in STEPS})


def test_two_that_go_on_with_one_run_at_once_do_not_mix(network, client, tmp_path):
    first, second = logger(tmp_path, network.url), logger(tmp_path, network.url)
    assert first.run_key != second.run_key


def test_a_torn_line_is_read_by_nobody_and_written_over(tmp_path):
    outbox = Outbox(tmp_path)
    spool = outbox.open("run", {"store": "s", "start_time": 0})
    spool.append("tags", values={"a": "1"})
    spool.close()
    records = tmp_path / "run" / "records.jsonl"
    whole = records.read_bytes()
    records.write_bytes(whole + b'{"kind":"metr')
    (parcel,) = outbox.parcels("s")
    assert parcel.size == len(whole)
    spool = outbox.open("run", {"store": "s", "start_time": 0})
    spool.append("end")
    spool.close()
    assert [record["kind"] for record in parcel.read(0, 1 << 16)[0]] == ["tags", "end"]


def test_an_outbox_of_two_stores_is_sent_to_each_its_own(tmp_path):
    outbox = Outbox(tmp_path)
    for store in ("one", "two"):
        spool = outbox.open(store, {"store": store, "start_time": 0})
        spool.append("start")
        spool.close()
    assert [parcel.key for parcel in outbox.parcels("two")] == ["two"]


def test_a_run_that_is_written_is_never_removed(tmp_path):
    outbox = Outbox(tmp_path)
    spool = outbox.open("run", {"store": "s", "start_time": 0})
    (parcel,) = outbox.parcels("s")
    outbox.remove(parcel, 0)
    assert parcel.folder.exists()
    spool.close()
    assert not parcel.folder.exists()
    assert FileLock(tmp_path / ".lock").acquire(timeout=0)
