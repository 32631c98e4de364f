"""Jobs in processes of their own: their endings, and that they end with the coordinator."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, util
from pathlib import Path
from typing import Any

import pytest

from redline.search.workers.pool import Ended, Pool, Slot

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"


@pytest.fixture
def pool(own_environment: None) -> Iterator[Pool]:
    pool = Pool([Slot(0, None), Slot(1, "3")], preload=["fake_jobs"])
    yield pool
    for slot in pool.slots:
        pool.stop(slot)


def messages(pool: Pool, slot: Slot) -> list[Any]:
    """Everything a slot says until its job has ended."""
    heard: list[Any] = []
    deadline = time.monotonic() + 300
    while not heard or not isinstance(heard[-1], Ended):
        assert time.monotonic() < deadline
        heard += [message for its, message in pool.poll(1.0) if its is slot]
    return heard


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def until_read(path: Path) -> str:
    """A line of a file, once there is one."""
    assert until(lambda: path.exists() and "\n" in path.read_text())
    return path.read_text()


def until(true: Callable[[], bool], seconds: float = 300) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return False


def test_a_result_passes_and_the_job_talks_on_the_way(pool: Pool, tmp_path: Path) -> None:
    log = tmp_path / "deep" / "job.log"
    pool.start(pool.slots[0], "fake_jobs:echo", {"n": 21}, log)
    assert not pool.slots[0].free
    heard = messages(pool, pool.slots[0])
    assert heard[0] == {"doing": "half way"}
    assert heard[1].result["doubled"] == 42
    assert (heard[1].user_error, heard[1].crash) == (None, None)
    assert pool.slots[0].free
    assert log.read_text().split("\n")[:2] == ["out of the job", "and its complaints"]


def test_a_slot_with_a_gpu_shows_its_job_only_that_one(pool: Pool, tmp_path: Path) -> None:
    pool.start(pool.slots[1], "fake_jobs:echo", {"n": 1}, tmp_path / "log")
    assert messages(pool, pool.slots[1])[-1].result["gpu"] == "3"


@pytest.mark.parametrize(
    ("job", "ended"),
    [
        ("users_mistake", Ended(user_error="lr=-1: allowed: numbers above 0")),
        ("bug", Ended(crash="RuntimeError: a bug of ours")),
        ("die", Ended(crash="killed by signal SIGKILL")),
        ("leave", Ended(crash="exit status 3")),
        ("no_such_job", None),
    ],
)
def test_every_other_ending_is_told_apart_and_frees_the_slot(
    pool: Pool, tmp_path: Path, job: str, ended: Ended | None
) -> None:
    pool.start(pool.slots[0], f"fake_jobs:{job}", {}, tmp_path / "log")
    last = messages(pool, pool.slots[0])[-1]
    if ended is None:
        assert last.crash is not None
    else:
        assert last == ended
    if job == "bug":
        assert "a bug of ours" in (tmp_path / "log").read_text()  # the traceback
    pool.start(pool.slots[0], "fake_jobs:echo", {"n": 2}, tmp_path / "log")
    assert messages(pool, pool.slots[0])[-1].result["doubled"] == 4


def test_one_crash_takes_no_other_job_along(pool: Pool, tmp_path: Path) -> None:
    pool.start(pool.slots[0], "fake_jobs:die", {}, tmp_path / "a")
    pool.start(pool.slots[1], "fake_jobs:echo", {"n": 3}, tmp_path / "b")
    ends: dict[int, Ended] = {}
    while len(ends) < 2:
        for slot, message in pool.poll(1.0):
            if isinstance(message, Ended):
                ends[slot.index] = message
    assert ends[0].crash == "killed by signal SIGKILL"
    assert ends[1].result is not None


@pytest.mark.parametrize(
    ("job", "patience", "by_force"), [("sleep", 300.0, False), ("sleep_deaf", 0.2, True)]
)
def test_stopping_ends_a_job_by_force_if_need_be(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, patience: float, by_force: bool
) -> None:
    slot = pool.slots[0]
    pool.start(slot, f"fake_jobs:{job}", {}, tmp_path / "log")
    heard: list[Any] = []
    while not heard:
        heard = pool.poll(1.0)
    pid = heard[0][1]["pid"]
    kill, killed = slot.process.kill, []
    monkeypatch.setattr(slot.process, "kill", lambda: killed.append(kill()))
    pool.stop(slot, patience)
    assert bool(killed) == by_force
    assert not alive(pid)
    assert slot.free


def kill_server() -> None:
    """The one that the pool's jobs are forked from."""
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)


def test_a_killed_server_takes_no_job_along_and_is_replaced(pool: Pool, tmp_path: Path) -> None:
    go = tmp_path / "go"
    pool.start(pool.slots[0], "fake_jobs:nap", {"n": 3, "until": str(go)}, tmp_path / "a")
    kill_server()
    pool.start(pool.slots[1], "fake_jobs:echo", {"n": 4}, tmp_path / "b")
    assert messages(pool, pool.slots[1])[-1].result["doubled"] == 8
    go.touch()
    assert messages(pool, pool.slots[0])[-1].result["doubled"] == 6


def test_a_server_killed_while_it_starts_a_job_is_replaced(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, killed = forkserver.connect_to_new_process, []

    def connect_and_kill(fds: Any) -> Any:
        ends = connect(fds)
        if not killed:
            kill_server()
            killed.append(True)
        return ends

    monkeypatch.setattr(forkserver, "connect_to_new_process", connect_and_kill)
    pool.start(pool.slots[0], "fake_jobs:echo", {"n": 2}, tmp_path / "log")
    assert killed
    assert messages(pool, pool.slots[0])[-1].result["doubled"] == 4


def test_a_server_hears_no_ctrl_c_before_it_can_end_without_a_word(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, deaf = util.spawnv_passfds, []

    def look_and_spawn(path: Any, args: Any, fds: Any) -> int:
        deaf.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
        return spawn(path, args, fds)

    pool.start(pool.slots[0], "fake_jobs:echo", {"n": 1}, tmp_path / "log")
    monkeypatch.setattr(util, "spawnv_passfds", look_and_spawn)
    kill_server()
    pool.start(pool.slots[1], "fake_jobs:echo", {"n": 2}, tmp_path / "log")
    assert deaf == [True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    server = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/status").read_text()
    blocked = int(server.split("SigBlk:")[1].split()[0], 16)
    assert not blocked & 1 << signal.SIGINT - 1, "it stays deaf"


def test_stopping_ends_a_job_whose_server_was_killed(pool: Pool, tmp_path: Path) -> None:
    slot = pool.slots[0]
    pool.start(slot, "fake_jobs:sleep_deaf", {}, tmp_path / "log")
    heard: list[Any] = []
    while not heard:
        heard = pool.poll(1.0)
    kill_server()
    pool.stop(slot, patience=0.2)
    assert until(lambda: not alive(heard[0][1]["pid"]))


def test_a_job_killed_amid_a_message_has_crashed(pool: Pool, tmp_path: Path) -> None:
    slot = pool.slots[0]
    pool.start(slot, "fake_jobs:send_too_much", {}, tmp_path / "log")
    pid = int(until_read(tmp_path / "log"))
    assert until(lambda: slot.pipe is not None and slot.pipe.poll()), "the message has not begun"
    os.kill(pid, signal.SIGKILL)
    assert messages(pool, slot) == [Ended(crash="killed by signal SIGKILL")]


def test_jobs_end_when_their_coordinator_is_killed(tmp_path: Path) -> None:
    """kill -9 leaves the coordinator no chance to tell its children."""
    script = (
        "import sys, pathlib\n"
        "from redline.search.workers.pool import Pool, Slot\n"
        "pool = Pool([Slot(0, None), Slot(1, None)], preload=['fake_jobs'])\n"
        "for slot, job in zip(pool.slots, ('sleep', 'sleep_deaf')):\n"
        "    pool.start(slot, f'fake_jobs:{job}', {}, pathlib.Path(sys.argv[1]) / 'log')\n"
        "while True:\n"
        "    for _, message in pool.poll(1.0):\n"
        "        print(message['pid'], flush=True)\n"
    )
    coordinator = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{SRC}{os.pathsep}{HERE}"},
    )
    assert coordinator.stdout is not None
    children = [int(coordinator.stdout.readline()) for _ in range(2)]
    assert all(alive(pid) for pid in children)
    coordinator.send_signal(signal.SIGKILL)
    coordinator.wait()
    coordinator.stdout.close()
    assert until(lambda: not any(alive(pid) for pid in children))


def test_whoever_ends_does_not_wait_for_the_servers_interpreter_to_be_taken_apart(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text(
        "import os, pathlib\n"
        "server = os.getpid()\n"
        f"log = pathlib.Path({str(tmp_path / 'log')!r})\n"
        "class Heavy:\n"
        "    def __del__(self, write=log.write_text, pid=os.getpid):\n"
        "        if pid() == server: write('taken apart')\n"
        "heavy = Heavy()\n"
        "def job(payload, send):\n"
        "    return {'imported_by_the_server': server != os.getpid()}\n"
    )
    script = (
        "import sys, pathlib\n"
        "from redline.search.workers.pool import Ended, Pool, Slot\n"
        "pool = Pool([Slot(0, None)], preload=['heavy'])\n"
        "pool.start(pool.slots[0], 'heavy:job', {}, pathlib.Path(sys.argv[1]) / 'job.log')\n"
        "ended = []\n"
        "while not ended:\n"
        "    ended = [its for _, its in pool.poll(1.0) if isinstance(its, Ended)]\n"
        "print(ended[0].result)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{SRC}{os.pathsep}{tmp_path}"},
    )
    assert (done.stdout, done.stderr) == ("{'imported_by_the_server': True}\n", "")
    assert not (tmp_path / "log").exists()


def test_a_job_whose_folder_cannot_be_made_has_crashed(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pool.start(pool.slots[0], "fake_jobs:echo", {"n": 1}, tmp_path / "file" / "log")
    assert messages(pool, pool.slots[0]) == [Ended(crash="exit status 1")]


def test_a_job_that_is_kept_is_started_again_when_it_dies_and_ends_when_released(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redline.search.workers.pool._START_AGAIN", 0.2)
    pids: list[int] = []
    pool.keep("fake_jobs:sleep", {}, tmp_path / "log", lambda message: pids.append(message["pid"]))
    assert until(lambda: pool.poll(0.0) == [] and len(pids) == 1)
    os.kill(pids[0], signal.SIGKILL)
    assert until(lambda: pool.poll(0.0) == [] and len(pids) == 2)
    assert all(slot.free for slot in pool.slots)
    pool.release()
    assert until(lambda: not alive(pids[1]))
    assert pool.poll(0.5) == []
    assert len(pids) == 2
