"""Metrics wait on disk for an MLflow that is slow, restarts, loses answers or is gone; none is sent twice."""

import functools
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from omegaconf import OmegaConf
from training_helpers import train

import redline.training.outbox.sender as sender_module
from mlflow_server import Network, Server
from ports import free_port
from redline.training.at_end import finish
from redline.training.environment import resolved
from redline.training.outbox import Outbox, RunFolder, _started, drain, is_held, start_sender
from redline.training.outbox.sender import Sender
from redline.training.trackers import TrackedRun, build_trackers
from redline.training.trackers import mlflow as logger_module
from redline.training.trackers.mlflow import MLFlowOutboxLogger

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
    wire.delay, wire.cut, wire.lose = 0.0, False, ""


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


def spec(folder, uri, send_timeout=30.0, ui="http://ui/"):
    return {
        "outbox": str(folder / "outbox"),
        "tracking_uri": uri,
        "artifact_location": str(folder / "artifacts"),
        "send_every": 0.1,
        "send_timeout": send_timeout,
        "ui": ui,
    }


def logger(folder, uri, key="run", ui="http://ui", send_timeout=30.0, **tags):
    settings = spec(folder, uri, send_timeout, ui) | {
        "_target_": "redline.training.trackers.mlflow.MLFlowOutboxLogger"
    }
    run = TrackedRun(key=key, experiment=folder.name, name="qk lr=1", tags=tags)
    return build_trackers(OmegaConf.create({"mlflow": settings}), run)


@contextmanager
def sending(folder, uri, monkeypatch=None):
    """A sender in this process, beside which no other is started; with ``monkeypatch`` it does not linger."""
    if monkeypatch is not None:
        monkeypatch.setattr(sender_module, "_LINGER", 0.0)
        monkeypatch.setattr(sender_module, "_RETRY", 0.1)
    outbox = Outbox(**spec(folder, uri))
    with outbox.lock("sender").acquire(timeout=30):
        yield Sender(outbox)


def until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def only_run(client, experiment, key=None):
    found = client.get_experiment_by_name(experiment)
    where = "" if key is None else f"tags.run_key = '{key}'"
    (run,) = client.search_runs([found.experiment_id], where)
    return run


def senders(folder):
    """The process ids of the senders of the outboxes in ``folder``; they hold its log open."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            log = os.readlink(place / "fd" / "2")
            if Path(log).name == "sender.log" and Path(log).is_relative_to(folder):
                found.append(int(place.name))
    return found


def command(process):
    return Path(f"/proc/{process}/cmdline").read_text()


def curve(client, run, key="train/loss"):
    """(step, value) of every point that is stored, as often as it is."""
    points = client.get_metric_history(run.info.run_id, key)
    return sorted((point.step, point.value) for point in points)


def is_complete(client, experiment, losses):
    run = only_run(client, experiment)
    assert curve(client, run) == sorted(losses.items())
    assert run.info.status == "FINISHED"
    return run


def test_a_server_that_is_slow_does_not_slow_training(run_cfg, network, client, place, tmp_path, monkeypatch):
    network.delay = 1.0
    spent = 0.0
    for method in ("__init__", "log_hyperparams", "log_metrics", "set_tags", "log_file", "end"):

        def timed(*arguments, do, **more):
            nonlocal spent
            began = time.monotonic()
            do(*arguments, **more)
            spent += time.monotonic() - began

        do = getattr(MLFlowOutboxLogger, method)
        monkeypatch.setattr(MLFlowOutboxLogger, method, functools.partialmethod(timed, do=do))

    def under_way(progress):
        if progress.step == 6:
            until(lambda: network.requests > 0)

    cfg = run_cfg(*tracked(place, network.url))
    _, losses = train(cfg, tmp_path, search="slow", also=under_way)
    assert spent < 0.9 * network.delay
    network.delay = 0.0
    assert drain(cfg.tracker, 60) is None
    is_complete(client, "slow", losses)


def test_one_that_restarts_gets_every_point_once(run_cfg, server, network, client, place, tmp_path):
    """It is killed in the middle of a run, and is there again some time after its end."""
    cfg = run_cfg(*tracked(place, network.url))

    def meddle(progress):
        if progress.step == 6:
            until(lambda: any(run.run_id for run in Outbox.of(cfg.tracker).runs()))
            server.stop()

    outcome, losses = train(cfg, tmp_path, search="restarted", also=meddle)
    assert list(losses) == STEPS
    server.start()
    server.wait()
    until(lambda: drain(cfg.tracker, 60) is None)
    run = is_complete(client, "restarted", losses)
    assert outcome.page == f"http://localhost:5000/#/runs/{run.info.run_id}"


def test_one_that_is_gone_changes_nothing_and_gets_all_when_it_is_back(
    run_cfg, network, client, place, tmp_path
):
    untracked, expected = train(run_cfg(), tmp_path / "untracked")
    network.cut = True
    cfg = run_cfg(*tracked(place, network.url), "tracker.mlflow.send_timeout=600")
    outcome, losses = train(cfg, tmp_path / "run", search="gone")
    assert losses == expected
    assert replace(outcome, seconds=0) == replace(untracked, seconds=0)
    assert outcome.page is None
    left = drain(cfg.tracker)
    assert "\n" not in left
    assert f"{network.url}: " in left
    assert "1 run(s) wait" in left
    assert "`redline send` sends them" in left
    network.cut = False
    until(lambda: drain(cfg.tracker, 60) is None)
    is_complete(client, "gone", losses)
    assert not Outbox.of(cfg.tracker).runs()


def test_a_run_that_is_written_warns_once_of_a_store_that_is_gone(network, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logger_module, "_CHECK_EVERY", 0.0)
    network.cut = True
    with sending(tmp_path, network.url) as sender:
        tracker = logger(tmp_path, network.url)
        for step in STEPS[:3]:
            with pytest.raises(Exception, match=r".") as raised:
                sender.step()
            sender.outbox.note_trouble(str(raised.type))
            tracker.log_metrics({"train/loss": 1.0}, step)
        tracker.end("FAILED")
    (said,) = [record.getMessage() for record in caplog.records]
    assert network.url in said


@pytest.mark.parametrize("lost", ["experiments/create", "runs/create", "runs/log-batch", "runs/update"])
def test_what_the_server_did_without_our_hearing_of_it_is_not_done_twice(
    network, client, tmp_path, lost, monkeypatch
):
    with sending(tmp_path, network.url, monkeypatch) as sender:
        tracker = logger(tmp_path, network.url, search="s")
        tracker.log_hyperparams({"lr": 1.0})
        for step in STEPS:
            tracker.log_metrics({"train/loss": 0.5 + step}, step)
        tracker.end("FINISHED")
        network.lose = lost
        sender.run()
    assert network.lose == ""
    is_complete(client, tmp_path.name, {step: 0.5 + step for step in STEPS})


def test_what_mlflow_will_never_take_is_noted_and_left_out(network, client, tmp_path, monkeypatch):
    with sending(tmp_path, network.url, monkeypatch) as sender:
        tracker = logger(tmp_path, network.url)
        tracker.log_metrics({"train/loss": 1.0, "norm/§": 2.0, "val/loss": 3.0}, 0)
        tracker.log_hyperparams({"lr": 1.0, "§": 1.0})
        tracker.end("FINISHED")
        sender.run()
    data = only_run(client, tmp_path.name).data
    assert (set(data.metrics), set(data.params)) == ({"train/loss", "val/loss"}, {"lr"})
    (noted,) = (tmp_path / "outbox").glob("*/refused.txt")
    metric, param = noted.read_text().splitlines()
    assert "metrics: norm/§ at step 0" in metric
    assert "params: §" in param


def test_what_is_not_finite_arrives_with_its_flag(network, client, tmp_path, monkeypatch):
    with sending(tmp_path, network.url, monkeypatch) as sender:
        tracker = logger(tmp_path, network.url)
        tracker.log_metrics({"train/loss": float("nan"), "train/grad_norm": float("inf")}, 3)
        tracker.end("FINISHED")
        sender.run()
    run = only_run(client, tmp_path.name)
    for key in ("train/loss", "train/grad_norm"):
        assert curve(client, run, f"{key}/non_finite") == [(3, 1.0)]


def test_arrays_and_texts_become_artifacts(network, client, tmp_path, monkeypatch):
    arrays = {"weight/qkv/layer_00": np.arange(5), "weight/proj/layer_00": np.ones((2, 2))}
    with sending(tmp_path, network.url, monkeypatch) as sender:
        tracker = logger(tmp_path, network.url)
        (mlflow,) = tracker.loggers
        mlflow.log_arrays(arrays, 123)
        tracker.log_file("config.yaml", b"lr: 1\n")
        tracker.end("FINISHED")
        sender.run()
    run_id = only_run(client, tmp_path.name).info.run_id
    with np.load(client.download_artifacts(run_id, "histograms/step_000123.npz")) as stored:
        assert set(stored) == set(arrays)
        assert all((stored[name] == array).all() for name, array in arrays.items())
    with open(client.download_artifacts(run_id, "config.yaml")) as stored:
        assert stored.read() == "lr: 1\n"


def test_a_run_has_a_page_once_mlflow_has_the_run(network, client, tmp_path, monkeypatch):
    with sending(tmp_path, network.url, monkeypatch) as sender:
        tracker, without = logger(tmp_path, network.url), logger(tmp_path, network.url, "other", ui=None)
        assert tracker.page is None
        sender.step()
        run = only_run(client, tmp_path.name, key="run")
        assert (tracker.page, without.page) == (f"http://ui/#/runs/{run.info.run_id}", None)
        for one in (tracker, without):
            one.end("FINISHED")
        sender.run()
        assert tracker.page == f"http://ui/#/runs/{run.info.run_id}"


def test_no_password_is_kept_or_told(run_cfg, tmp_path):
    uri = f"http://me:se/cr@et@127.0.0.1:{free_port()}"
    cfg = run_cfg(*tracked(tmp_path, uri))
    tracker = logger(tmp_path, uri)
    (process,) = senders(tmp_path)
    assert "se/cr" not in command(process)
    tracker.log_file("config.yaml", str(resolved(cfg)).encode())
    tracker.end("FAILED")
    left = drain(cfg.tracker, 60)
    assert "se/cr" not in left
    os.kill(process, signal.SIGKILL)
    kept = [path.read_bytes() for path in (tmp_path / "outbox").rglob("*") if path.is_file()]
    kept += [str(path).encode() for path in (tmp_path / "outbox").rglob("*")]
    assert any(b"me:***@127.0.0.1" in content for content in kept)
    assert not [content for content in kept if b"se/cr" in content or b"et@127" in content]


def test_what_a_killed_run_left_is_sent_by_the_next_which_goes_on_in_it(
    network, client, tmp_path, monkeypatch
):
    with sending(tmp_path, network.url, monkeypatch) as sender:
        pid = os.fork()
        if pid == 0:
            tracker = logger(tmp_path, network.url)
            for step in STEPS[:7]:
                tracker.log_metrics({"train/loss": float(step)}, step)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        sender.run()
        run = only_run(client, tmp_path.name)
        assert run.info.status == "KILLED"
        assert [step for step, _ in curve(client, run)] == STEPS[:7]

        tracker = logger(tmp_path, network.url, trial="7")
        for step in STEPS[7:]:
            tracker.log_metrics({"train/loss": float(step)}, step)
        sender.step()
        run = only_run(client, tmp_path.name)
        assert (run.info.status, run.data.tags["trial"]) == ("RUNNING", "7")
        tracker.end("FINISHED")
        sender.run()
    is_complete(client, tmp_path.name, {step: float(step) for step in STEPS})


def test_parameters_that_a_resumed_run_changes_become_tags(network, client, tmp_path, monkeypatch):
    with sending(tmp_path, network.url, monkeypatch) as sender:
        for steps in (100, 200):
            tracker = logger(tmp_path, network.url)
            tracker.log_hyperparams({"trainer": {"max_steps": steps}, "lr": 1.0})
            tracker.end("FINISHED")
            sender.run()
    data = only_run(client, tmp_path.name).data
    assert data.params == {"trainer/max_steps": "100", "lr": "1.0"}
    changed = {key: value for key, value in data.tags.items() if key.startswith("changed/")}
    assert changed == {"changed/trainer/max_steps": "200"}


def test_two_that_go_on_with_one_run_at_once_do_not_mix(network, tmp_path):
    with sending(tmp_path, network.url):
        first, second = logger(tmp_path, network.url), logger(tmp_path, network.url)
        assert first.run_key != second.run_key


def test_a_killed_sender_is_replaced_and_every_point_arrives_once(network, client, tmp_path):
    network.delay = 0.05
    tracker = logger(tmp_path, network.url)
    tracker.log_file("config.yaml", b"lr: 1\n")
    for step in range(6000):
        tracker.log_metrics({"train/loss": float(step)}, step)
    (process,) = senders(tmp_path)
    (run,) = Outbox(**spec(tmp_path, network.url)).runs()
    until(lambda: run.run_id is not None)
    until(lambda: client.get_run(run.run_id).data.metrics)
    os.kill(process, signal.SIGKILL)
    tracker.end("FINISHED")
    assert len(curve(client, only_run(client, tmp_path.name))) < 6000, "it was done already"
    assert drain({"mlflow": spec(tmp_path, network.url)}, 60) is None
    assert senders(tmp_path) != [process]
    is_complete(client, tmp_path.name, {step: float(step) for step in range(6000)})


def test_a_sender_that_was_killed_is_missed_by_the_run_that_goes_on(network, tmp_path, monkeypatch):
    monkeypatch.setattr(logger_module, "_CHECK_EVERY", 0.0)
    tracker = logger(tmp_path, network.url)
    (process,) = senders(tmp_path)
    os.kill(process, signal.SIGKILL)
    until(lambda: _started[Outbox(**spec(tmp_path, network.url)).folder].poll() is not None)
    tracker.log_metrics({"train/loss": 1.0}, 0)
    (another,) = senders(tmp_path)
    assert another != process
    tracker.end("FINISHED")
    assert drain({"mlflow": spec(tmp_path, network.url)}, 60) is None


def test_of_many_senders_that_start_at_once_one_goes_on_out_of_reach_of_ctrl_c(network, tmp_path):
    outbox = Outbox(**spec(tmp_path, network.url))
    with outbox.lock("sender").acquire():
        tracker = logger(tmp_path, network.url)
    started = []
    for _ in range(4):
        start_sender(outbox)
        started.append(_started.pop(outbox.folder))
    until(lambda: is_held(outbox.lock("sender")) and len(senders(tmp_path)) == 1)
    (process,) = senders(tmp_path)
    assert process in [its.pid for its in started]
    assert os.getpgid(process) == process
    tracker.end("FINISHED")


def test_a_sender_ends_by_itself_also_where_the_store_is_gone(network, tmp_path):
    for name, cut in (("sent", False), ("gone", True)):
        network.cut = cut
        tracker = logger(tmp_path / name, network.url, send_timeout=1.0)
        assert senders(tmp_path / name)
        time.sleep(1.5)
        tracker.end("FINISHED")
        until(lambda name=name: not senders(tmp_path / name), 40)
        left = drain({"mlflow": spec(tmp_path / name, network.url)}, 0.0)
        assert (left is not None) == cut


def test_at_a_searchs_end_no_run_claims_to_run(network, client, tmp_path):
    experiment = client.create_experiment(tmp_path.name)
    lost = client.create_run(experiment, tags={"run_key": "of a machine that is gone"})
    ended, written = (logger(tmp_path, network.url, key) for key in ("ended", "written"))
    ended.end("FINISHED")
    tracker = {"csv": {}, "mlflow": {**spec(tmp_path, network.url), "ui": "http://ui/"}}
    line, _ = finish(tracker, tmp_path.name)
    assert line is not None
    assert f"http://ui/#/experiments/{experiment}/runs" in line
    until(lambda: len(client.search_runs([experiment])) == 3)
    found = {run.data.tags["run_key"]: run.info.status for run in client.search_runs([experiment])}
    assert found == {lost.data.tags["run_key"]: "KILLED", "ended": "FINISHED", "written": "RUNNING"}
    written.end("FINISHED")
    assert drain(tracker, 60) is None


def test_a_searchs_end_says_what_waits(network, tmp_path):
    network.cut = True
    logger(tmp_path, network.url).end("FINISHED")
    line, pages = finish({"mlflow": spec(tmp_path, network.url)}, tmp_path.name)
    assert line is not None
    assert network.url in line
    assert pages == {}
    assert finish({"csv": {}}, "search") == (None, {})


def test_a_torn_line_is_read_by_nobody_and_followed_by_whole_ones(tmp_path):
    run = Outbox(**spec(tmp_path, "s")).open("run")
    run.append(0, 1, {"a": 1.0})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'\n[1,2,{"a":')
    entries, end = run.metrics(0)
    assert entries == [[0, 1, {"a": 1.0}]]
    assert run.metrics(end) == ([], end)
    run.append(2, 3, {})
    assert run.metrics(end)[0] == [[2, 3, {}]]


def test_an_outbox_of_two_stores_is_sent_to_each_its_own(tmp_path):
    for store in ("one", "two"):
        logger(tmp_path, store, key=store).end("FINISHED")
    assert [run.key for run in Outbox(**spec(tmp_path, "two")).runs()] == ["two"]


def test_a_run_that_is_written_is_never_removed(tmp_path):
    outbox = Outbox(**spec(tmp_path, "s"))
    with outbox.lock("sender"):
        tracker = logger(tmp_path, "s")
        (run,) = outbox.runs()

        def is_kept(state, offset):
            outbox.remove(RunFolder(run.path), state, offset)
            return run.path.exists()

        state = run.state()
        assert is_kept(state, 0)
        tracker.log_metrics({"a": 1.0}, 0)
        tracker.end("FINISHED")
        _, end = run.metrics(0)
        assert is_kept(state, end)
        assert is_kept(run.state(), 0)
        assert not is_kept(run.state(), end)


def test_a_trials_process_does_without_mlflow(tmp_path):
    code = f"""
import sys
import redline.training.run
from redline.training.trackers import TrackedRun
from redline.training.trackers.mlflow import MLFlowOutboxLogger
run = TrackedRun("key", "experiment", "name", {{}})
logger = MLFlowOutboxLogger(run=run, **{spec(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")!r})
logger.log_metrics({{"loss": 1.0}}, 0)
logger.page
logger.end("FINISHED")
assert "mlflow" not in sys.modules
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
