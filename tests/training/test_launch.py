"""A run's ranks: forked, watched and ended; what they compute is another test's."""

import math
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from machines import Command, enter
from omegaconf import DictConfig, OmegaConf
from torch.multiprocessing.spawn import ProcessContext

from network import Network
from redline.errors import UserError
from redline.search import Facts, Score, Trial
from redline.stability import Watch
from redline.stability.rules import NonFinite
from redline.training.build import check_devices
from redline.training.ranks import launcher as launching
from redline.training.ranks import machine as ranks

Rank = Callable[[DictConfig, Trial], Score]


def cfg_of(devices: int, nodes: int = 1) -> DictConfig:
    trainer = {"devices": devices, "num_nodes": nodes, "node_command": ["any"], "rank_timeout": 4.0}
    return OmegaConf.create({"trainer": {**trainer, "threads": None}})


@pytest.fixture
def trial(tmp_path):
    watch = Watch({"non_finite": NonFinite()}, curve=tmp_path / "curve.bin")
    return Trial(0.1, 0, tmp_path, Facts(2), threads=8, watch=watch)


@pytest.fixture
def launch(monkeypatch) -> Callable[..., Score]:
    """Runs the function on so many ranks."""

    def launch(rank: Rank, trial: Trial, devices: int = 2, nodes: int = 1) -> Score:
        def joined(cfg: DictConfig, trial: Trial) -> Score:
            dist.init_process_group("gloo", timeout=timedelta(seconds=1))
            return rank(cfg, trial)

        monkeypatch.setattr(ranks, "run", joined)
        return launching.launch(cfg_of(devices, nodes), trial)

    return launch


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def all_end(pids: list[int], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(alive, pids))


def pids_in(directory: Path, count: int, names: str = "pid-*") -> list[int]:
    until = time.monotonic() + 20
    while len(found := list(directory.glob(names))) < count:
        assert time.monotonic() < until, "the ranks did not start"
        time.sleep(0.02)
    return [int(path.name.partition("-")[2]) for path in found]


def test_four_ranks_make_one_run_that_the_first_reports(launch, trial):
    told = []
    trial.watch.tell = lambda progress: told.append(progress)

    def rank(cfg, trial):
        number = torch.tensor(float(dist.get_rank()))
        dist.all_reduce(number)
        assert dist.get_world_size() == int(os.environ["WORLD_SIZE"]) == 4
        assert not trial.report(0, number.item())
        assert trial.report(1, math.nan)
        trial.link("page" if dist.get_rank() == 0 else "other")
        assert not told or dist.get_rank() == 0
        return Score(float(dist.get_rank()), numbers={"threads": cfg.trainer.threads})

    score = launch(rank, trial, devices=4)
    assert score == Score(0.0, numbers={"threads": 2})
    outcome = trial.outcome(score)
    assert (outcome.initial_loss, outcome.reason, outcome.step) == (6.0, "non_finite", 1)
    assert outcome.page == "page"
    # Of rank 0 alone: two records.
    assert (trial.directory / "curve.bin").stat().st_size == 2 * 24
    assert not [*trial.directory.glob("ranks*")]


@pytest.mark.parametrize(
    ("ends", "error", "words"),
    [
        ("raises", RuntimeError, "rank 1: ValueError: boom"),
        ("mistake", UserError, "lr=3: too large; allowed: 2"),
        ("killed", RuntimeError, "rank"),
        ("stopped", RuntimeError, "rank 0: "),
    ],
)
def test_one_rank_that_fails_ends_all_with_its_reason(launch, trial, monkeypatch, ends, error, words):
    waits = ProcessContext._join_procs_with_timeout
    monkeypatch.setattr(ProcessContext, "_join_procs_with_timeout", lambda self, _: waits(self, 0.5))

    def rank(cfg, trial):
        (trial.directory / f"pid-{os.getpid()}").touch()
        if dist.get_rank() == 1:
            if ends == "raises":
                raise ValueError("boom")
            if ends == "mistake":
                raise UserError("lr=3: too large; allowed: 2")
            os.kill(os.getpid(), signal.SIGKILL if ends == "killed" else signal.SIGSTOP)
        dist.barrier()
        return Score(0.0)

    with pytest.raises(error, match=words):
        launch(rank, trial)
    assert all_end(pids_in(trial.directory, 2))
    assert trial.watch.verdict is None


def test_a_rank_that_gives_no_sign_of_life_is_killed_and_no_other():
    """Without another rank that would wait for it in vain."""
    lives, ended = ranks._Lives(2), threading.Event()

    def rank(number: int) -> None:
        lives.begin(number)
        if number == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(60)

    lively, stopped = [get_context("fork").Process(target=rank, args=(number,)) for number in (0, 1)]
    for its in (lively, stopped):
        its.start()
    watch = threading.Thread(target=lives.watch_over, args=(1.5, ended))
    watch.start()
    stopped.join(20)
    ended.set()
    watch.join()
    assert (stopped.exitcode, lively.is_alive()) == (-signal.SIGKILL, True)
    lively.kill()
    lively.join()


def until_cancelled(cfg: DictConfig, trial: Trial) -> Score:
    (trial.directory / f"pid-{os.getpid()}").touch()
    while not trial.cancelled:
        time.sleep(0.02)
    (trial.directory / f"cancelled-{dist.get_rank()}").touch()
    return Score(1.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ranks_end_with_their_launcher(launch, trial, number):
    def launches() -> None:
        assert launch(until_cancelled, trial) == Score(None)
        assert trial.cancelled
        (trial.directory / "ended").touch()

    launcher = get_context("fork").Process(target=launches)
    launcher.start()
    pids = pids_in(trial.directory, 2)
    os.kill(launcher.pid, number)
    launcher.join(10)
    assert all_end(pids)
    asked = number == signal.SIGTERM  # each of them, and by its own will
    assert launcher.exitcode == (0 if asked else -signal.SIGKILL)
    assert {its.name for its in trial.directory.glob("*ed*")} == (
        {"cancelled-0", "cancelled-1", "ended"} if asked else set()
    )


def test_two_machines_make_one_run(launch, trial, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", Command)
    told = []
    trial.watch.tell = told.append

    def rank(cfg, trial):
        number = torch.tensor(float(dist.get_rank()))
        dist.all_reduce(number)
        assert os.environ["LOCAL_WORLD_SIZE"] == "2"
        trial.report(0, number.item())
        return Score(float(dist.get_rank()), numbers={"machine": float(os.environ["GROUP_RANK"])})

    score = launch(rank, trial, nodes=2)
    assert score == Score(0.0, numbers={"machine": 0.0})
    assert [its.loss for its in told] == [6.0]
    assert trial.outcome(score).initial_loss == 6.0


def test_a_machine_that_is_cut_off_is_a_crash_and_its_ranks_end_by_themselves(launch, trial, monkeypatch):
    network = Network(machines=1)
    here, there = network.on_server()[-1], network.on(1)[-1]
    monkeypatch.setattr(Command, "places", [(here, "to1"), (there, "wire")])
    monkeypatch.setattr(Command, "out_of_reach", [1])
    monkeypatch.setattr(socket, "gethostname", lambda: network.server_address(1))

    def rank(cfg, trial):
        (trial.directory / f"agent-{os.getppid()}").touch()
        (trial.directory / f"pid-{os.getpid()}").touch()
        while True:
            dist.barrier()

    def launches() -> None:
        enter(here, "to1")
        monkeypatch.setattr(subprocess, "Popen", Command)
        with pytest.raises(RuntimeError, match="rank"):
            launch(rank, trial, devices=1, nodes=2)
        (trial.directory / "ended").touch()
        os._exit(0)  # the other machine's processes are children of this one here

    try:
        network.create()
        launcher = get_context("fork").Process(target=launches)
        launcher.start()
        pids = pids_in(trial.directory, 2)
        network.cut(1)
        assert all_end([launcher.pid, *pids, *pids_in(trial.directory, 2, "agent-*")], seconds=20)
        assert (trial.directory / "ended").exists()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine makes no network namespaces: {getattr(error, 'stderr', error)!r}")
    finally:
        network.remove()


def test_more_devices_than_there_are_is_told_in_one_line(run_cfg, monkeypatch):
    check_devices(run_cfg("trainer.devices=64"))  # of a CPU, which they share
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices(run_cfg("trainer.accelerator=gpu", "trainer.devices=2"))
    with pytest.raises(UserError, match=r"trainer\.devices=3: 2 cuda device\(s\) here; allowed: 1 to 2"):
        check_devices(run_cfg("trainer.accelerator=gpu", "trainer.devices=3"))
