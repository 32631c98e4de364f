"""Tasks in processes of their own: their endings, and that they end with the coordinator."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, util
from pathlib import Path
from typing import Any

import fake_tasks
import pytest

from redline.search.workers.pool import Ended, Pool, Slot

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"


@pytest.fixture
def pool(own_environment: None) -> Iterator[Pool]:
    pool = Pool([Slot(0, None), Slot(1, "3")], preload=["fake_tasks"])
    yield pool
    for slot in pool.slots:
        pool.stop(slot)


def messages(pool: Pool, slot: Slot) -> list[Any]:
    """Everything a slot says until its task has ended."""
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


def test_a_result_passes_and_the_task_talks_on_the_way(pool: Pool, tmp_path: Path) -> None:
    log = tmp_path / "deep" / "task.log"
    pool.start(pool.slots[0], fake_tasks.echo, (21,), log)
    assert not pool.slots[0].free
    heard = messages(pool, pool.slots[0])
    assert heard[0] == {"doing": "half way"}
    assert heard[1].result["doubled"] == 42
    assert (heard[1].user_error, heard[1].crash) == (None, None)
    assert pool.slots[0].free
    assert log.read_text().split("\n")[:2] == ["out of the task", "and its complaints"]


def test_a_slot_with_a_gpu_shows_its_task_only_that_one(pool: Pool, tmp_path: Path) -> None:
    pool.start(pool.slots[1], fake_tasks.echo, (1,), tmp_path / "log")
    assert messages(pool, pool.slots[1])[-1].result["gpu"] == "3"


@pytest.mark.parametrize(
    ("task", "ended"),
    [
        ("users_mistake", Ended(user_error="lr=-1: allowed: numbers above 0")),
        ("bug", Ended(crash="RuntimeError: a bug of ours")),
        ("die", Ended(crash="killed by signal SIGKILL")),
        ("leave", Ended(crash="exit status 3")),
        ("give_the_unpicklable", Ended(crash="exit status 1")),
    ],
)
def test_every_other_ending_is_told_apart_and_frees_the_slot(
    pool: Pool, tmp_path: Path, task: str, ended: Ended
) -> None:
    pool.start(pool.slots[0], getattr(fake_tasks, task), (), tmp_path / "log")
    assert messages(pool, pool.slots[0])[-1] == ended
    if task == "bug":
        assert "a bug of ours" in (tmp_path / "log").read_text()  # the traceback
    pool.start(pool.slots[0], fake_tasks.echo, (2,), tmp_path / "log")
    assert messages(pool, pool.slots[0])[-1].result["doubled"] == 4


def test_one_crash_takes_no_other_task_along(pool: Pool, tmp_path: Path) -> None:
    pool.start(pool.slots[0], fake_tasks.die, (), tmp_path / "a")
    pool.start(pool.slots[1], fake_tasks.echo, (3,), tmp_path / "b")
    ends: dict[int, Ended] = {}
    while len(ends) < 2:
        for slot, message in pool.poll(1.0):
            if isinstance(message, Ended):
                ends[slot.index] = message
    assert ends[0].crash == "killed by signal SIGKILL"
    assert ends[1].result is not None


@pytest.mark.parametrize(
    ("task", "grace_period", "by_force"), [("sleep", 300.0, False), ("sleep_deaf", 0.2, True)]
)
def test_stopping_ends_a_task_by_force_if_need_be(
    pool: Pool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    grace_period: float,
    by_force: bool,
) -> None:
    slot = pool.slots[0]
    pool.start(slot, getattr(fake_tasks, task), (), tmp_path / "log")
    heard: list[Any] = []
    while not heard:
        heard = pool.poll(1.0)
    pid = heard[0][1]["pid"]
    kill, killed = slot.process.kill, []
    monkeypatch.setattr(slot.process, "kill", lambda: killed.append(kill()))
    pool.stop(slot, grace_period)
    assert bool(killed) == by_force
    assert not alive(pid)
    assert slot.free


def kill_server() -> None:
    """The one that the pool's tasks are forked from."""
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)


def test_a_killed_server_takes_no_task_along_and_is_replaced(pool: Pool, tmp_path: Path) -> None:
    pool.start(pool.slots[0], fake_tasks.wait_for, (tmp_path / "there",), tmp_path / "a")
    kill_server()
    pool.start(pool.slots[1], fake_tasks.echo, (4,), tmp_path / "b")
    assert messages(pool, pool.slots[1])[-1].result["doubled"] == 8
    (tmp_path / "there").touch()
    assert messages(pool, pool.slots[0])[-1].result == "it is there"


def test_a_server_killed_while_it_starts_a_task_is_replaced(
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
    pool.start(pool.slots[0], fake_tasks.echo, (2,), tmp_path / "log")
    assert killed
    assert messages(pool, pool.slots[0])[-1].result["doubled"] == 4


def test_a_server_hears_no_ctrl_c_before_it_can_end_without_a_word(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, deaf = util.spawnv_passfds, []

    def look_and_spawn(path: Any, args: Any, fds: Any) -> int:
        deaf.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
        return spawn(path, args, fds)

    pool.start(pool.slots[0], fake_tasks.echo, (1,), tmp_path / "log")
    monkeypatch.setattr(util, "spawnv_passfds", look_and_spawn)
    kill_server()
    pool.start(pool.slots[1], fake_tasks.echo, (2,), tmp_path / "log")
    assert deaf == [True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    server = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/status").read_text()
    blocked = int(server.split("SigBlk:")[1].split()[0], 16)
    assert not blocked & 1 << signal.SIGINT - 1, "it stays deaf"


def test_stopping_ends_a_task_whose_server_was_killed(pool: Pool, tmp_path: Path) -> None:
    slot = pool.slots[0]
    pool.start(slot, fake_tasks.sleep_deaf, (), tmp_path / "log")
    heard: list[Any] = []
    while not heard:
        heard = pool.poll(1.0)
    kill_server()
    pool.stop(slot, grace_period=0.2)
    assert until(lambda: not alive(heard[0][1]["pid"]))


def test_a_task_killed_amid_a_message_has_crashed(pool: Pool, tmp_path: Path) -> None:
    slot = pool.slots[0]
    pool.start(slot, fake_tasks.send_too_much, (), tmp_path / "log")
    pid = int(until_read(tmp_path / "log"))
    assert until(lambda: slot.pipe is not None and slot.pipe.poll()), "the message has not begun"
    os.kill(pid, signal.SIGKILL)
    assert messages(pool, slot) == [Ended(crash="killed by signal SIGKILL")]


def test_tasks_end_when_their_coordinator_is_killed(tmp_path: Path) -> None:
    """kill -9 leaves the coordinator no chance to tell its children."""
    script = (
        "import sys, pathlib\n"
        "from fake_tasks import sleep, sleep_deaf\n"
        "from redline.search.workers.pool import Pool, Slot\n"
        "pool = Pool([Slot(0, None), Slot(1, None)], preload=['fake_tasks'])\n"
        "for slot, task in zip(pool.slots, (sleep, sleep_deaf)):\n"
        "    pool.start(slot, task, (), pathlib.Path(sys.argv[1]) / 'log')\n"
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


def test_the_end_does_not_wait_for_the_teardown_of_the_servers_interpreter(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text(
        "import os, pathlib\n"
        "server = os.getpid()\n"
        f"log = pathlib.Path({str(tmp_path / 'log')!r})\n"
        "class Heavy:\n"
        "    def __del__(self, write=log.write_text, pid=os.getpid):\n"
        "        if pid() == server: write('taken apart')\n"
        "heavy = Heavy()\n"
        "def task(send):\n"
        "    return {'imported_by_the_server': server != os.getpid()}\n"
    )
    script = (
        "import sys, pathlib\n"
        "from redline.search.workers.pool import Ended, Pool, Slot\n"
        "def task(send):\n"  # only the server imports what is heavy
        "    import heavy\n"
        "    return heavy.task(send)\n"
        "pool = Pool([Slot(0, None)], preload=['heavy'])\n"
        "pool.start(pool.slots[0], task, (), pathlib.Path(sys.argv[1]) / 'task.log')\n"
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


def test_a_task_whose_folder_cannot_be_made_has_crashed(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pool.start(pool.slots[0], fake_tasks.echo, (1,), tmp_path / "file" / "log")
    assert messages(pool, pool.slots[0]) == [Ended(crash="exit status 1")]


def test_a_task_may_be_a_function_that_nobody_can_import(pool: Pool) -> None:
    """As of a notebook: pickled with what it refers to."""
    known = {"n": 20}

    def task(more: int, send: Any) -> int:
        return known["n"] + more

    assert pool.call(task, (1,)).result == 21


def test_a_call_hears_what_its_task_says_and_frees_its_slot(pool: Pool, tmp_path: Path) -> None:
    heard: list[Any] = []
    ended = pool.call(fake_tasks.echo, (4,), tmp_path / "log", hear=heard.append)
    assert ended.result["doubled"] == 8
    assert heard == [{"doing": "half way"}]
    assert pool.slots[0].free
    assert "out of the task" in (tmp_path / "log").read_text()


def test_a_called_task_that_crashes_is_tried_again_and_said_so(pool: Pool, tmp_path: Path) -> None:
    heard: list[Any] = []
    log = tmp_path / "log"
    ended = pool.call(fake_tasks.die_at_first, (tmp_path, 2), log, hear=heard.append, tries=3)
    assert ended == Ended(result=3)
    again = f"die_at_first: crashed (killed by signal SIGKILL), tried again; its log is in {log}"
    assert heard == [{"try": 0}, again, {"try": 1}, again, {"try": 2}]


def test_a_called_task_is_tried_no_more_than_asked(pool: Pool, tmp_path: Path) -> None:
    ended = pool.call(fake_tasks.die_at_first, (tmp_path, 9), tries=2)
    assert ended == Ended(crash="killed by signal SIGKILL")
    assert len(list(tmp_path.glob("try-*"))) == 2
    assert pool.slots[0].free


def test_a_mistake_of_the_users_in_a_called_task_is_not_tried_again(pool: Pool) -> None:
    heard: list[Any] = []
    ended = pool.call(fake_tasks.users_mistake, (), hear=heard.append, tries=5)
    assert (ended.user_error, heard) == ("lr=-1: allowed: numbers above 0", [])


def test_a_called_task_that_takes_too_long_is_ended(pool: Pool) -> None:
    pids: list[int] = []
    ended = pool.call(fake_tasks.sleep, (), hear=lambda message: pids.append(message["pid"]), timeout=1.0)
    assert ended == Ended(crash="took more than 1 s")
    assert pool.slots[0].free
    assert until(lambda: not any(alive(pid) for pid in pids))


def test_a_called_task_ends_with_what_stops_its_caller(pool: Pool) -> None:
    def interrupt(message: Any) -> None:
        pids.append(message["pid"])
        raise KeyboardInterrupt

    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        pool.call(fake_tasks.sleep, (), hear=interrupt)
    assert pool.slots[0].free
    assert until(lambda: not alive(pids[0]))


SCRIPT = """
from pathlib import Path
from redline import find_edge

with Path("started").open("a") as started:
    started.write("the script\\n")

def train(trial):
    with Path("trials").open("a") as trials:
        trials.write(f"{trial.value:g}\\n")
    trial.report(0, 1.0)
    return 1.0

result = find_edge(
    {"qk": train}, [1, 2], name="script", workers=1, report_timeout=None, extend=False
)
print(result.variants["qk"].censored)
"""


def test_a_script_without_a_guard_runs_its_trials_once(tmp_path: Path) -> None:
    """A child that ran the script again would begin the search again."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "below"  # nothing is learned
    assert (tmp_path / "started").read_text() == "the script\n"
    assert sorted((tmp_path / "trials").read_text().split()) == ["1", "2"]
