"""What strikes a search. Each fault is one function: it strikes, and gives what it did.

It gives None where there was nothing to strike. A new kind is a function and its place in ``FAULTS``.
"""

import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random

from processes import Process, forkservers, jobs, launchers, ranks, senders
from subject import Coordinator, Subject

Fault = Callable[[Subject, Random], str | None]


def trial_killed(subject: Subject, draw: Random) -> str | None:
    return _kill_one(jobs(subject.processes()), draw)


def rank_killed(subject: Subject, draw: Random) -> str | None:
    return _kill_one(ranks(subject.processes()), draw)


def launcher_killed(subject: Subject, draw: Random) -> str | None:
    return _kill_one(launchers(subject.processes()), draw)


def rank_hangs(subject: Subject, draw: Random) -> str | None:
    """For ever: the others are to notice."""
    return _kill_one(ranks(subject.processes()), draw, signal.SIGSTOP)


def sender_killed(subject: Subject, draw: Random) -> str | None:
    return _kill_one(senders(subject.processes()), draw)


def forkserver_killed(subject: Subject, draw: Random) -> str | None:
    return _kill_one(forkservers(subject.processes()), draw)


def coordinator_killed(subject: Subject, draw: Random) -> str | None:
    coordinator = _one(subject, draw)
    if coordinator is None:
        return None
    coordinator.killed = True
    coordinator.process.kill()
    return f"pid {coordinator.process.pid}"


def second_coordinator_then_one_killed(subject: Subject, draw: Random) -> str | None:
    subject.start()
    time.sleep(draw.uniform(0.5, 4))
    return coordinator_killed(subject, draw)


def group_killed(subject: Subject, draw: Random) -> str | None:
    coordinator = _one(subject, draw)
    if coordinator is None:
        return None
    coordinator.killed = True
    coordinator.signal_group(signal.SIGKILL)
    return f"group {coordinator.process.pid}"


def interrupted(subject: Subject, draw: Random) -> str | None:
    """Ctrl-C: the whole group hears it."""
    coordinator = _one(subject, draw)
    if coordinator is None:
        return None
    _tell_to_stop(subject, coordinator)
    coordinator.signal_group(signal.SIGINT)
    return _ends(coordinator)


def terminated(subject: Subject, draw: Random) -> str | None:
    coordinator = _one(subject, draw)
    if coordinator is None:
        return None
    _tell_to_stop(subject, coordinator)
    coordinator.process.send_signal(signal.SIGTERM)
    return _ends(coordinator)


def frozen(subject: Subject, draw: Random) -> str | None:
    """So long that another coordinator may take its trials."""
    coordinator = _one(subject, draw)
    if coordinator is None:
        return None
    if draw.random() < 0.5:
        subject.start()
    seconds = draw.uniform(0.5, 6)
    coordinator.signal_group(signal.SIGSTOP)
    time.sleep(seconds)
    coordinator.signal_group(signal.SIGCONT)
    return f"{seconds:.1f} s"


def clock_stepped(subject: Subject, draw: Random) -> str | None:
    seconds = draw.choice([-1, 1]) * int(10 ** draw.uniform(1, 8))
    subject.clock.write_text(str(seconds))
    return f"by {seconds} s"


def storage_locked(subject: Subject, draw: Random) -> str | None:
    with _locked(subject, draw) as held:
        if held:
            time.sleep(draw.uniform(0.5, 4))
    return held


def storage_restarted(subject: Subject, draw: Random) -> str | None:
    """As after a power cut of the server."""
    if subject.server is None:
        return None
    for coordinator in subject.alive():
        coordinator.without_storage = True
    subject.server.stop()
    seconds = draw.uniform(0, 3)
    time.sleep(seconds)
    subject.server.start()
    return f"gone for {seconds:.1f} s"


def interrupted_while_storage_is_locked(subject: Subject, draw: Random) -> str | None:
    coordinator = _one(subject, draw)
    if coordinator is None:
        return None
    with _locked(subject, draw) as held:
        if held is None:
            return None
        time.sleep(draw.uniform(0, 1))
        _tell_to_stop(subject, coordinator)
        coordinator.signal_group(signal.SIGINT)
        time.sleep(draw.uniform(0, 1))
    return f"{held}, {_ends(coordinator)}"


def disk_full(subject: Subject, draw: Random) -> str | None:
    if subject.disk is None:
        return None
    seconds = draw.uniform(0.3, 3)
    filler = subject.disk / "filler"
    for coordinator in subject.alive():
        coordinator.without_storage = True
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12):  # large pieces first, then the last page
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))
            time.sleep(seconds)
    finally:
        filler.unlink(missing_ok=True)
    return f"{seconds:.1f} s"


def checkpoint_damaged(subject: Subject, draw: Random) -> str | None:
    """What a machine that lost its power may leave: no process, and files cut short or ending in zeros."""
    until = time.monotonic() + 15  # a trial's lives for seconds
    while not (checkpoints := sorted(subject.folder.rglob("last.ckpt"))) and time.monotonic() < until:
        time.sleep(0.05)
    coordinators = subject.alive()
    if not checkpoints or not coordinators:
        return None
    for coordinator in coordinators:
        coordinator.killed = True
        coordinator.signal_group(signal.SIGKILL)
        coordinator.process.wait()
    damaged = 0
    for path in checkpoints:
        if path.exists():
            size = path.stat().st_size
            with path.open("r+b") as file:
                kept = file.truncate(draw.randrange(size))
                if draw.random() < 0.5:
                    file.truncate(size)
            damaged += kept < size
    return f"{damaged} of them"


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        trial_killed,
        rank_killed,
        launcher_killed,
        rank_hangs,
        sender_killed,
        forkserver_killed,
        coordinator_killed,
        second_coordinator_then_one_killed,
        group_killed,
        interrupted,
        terminated,
        frozen,
        clock_stepped,
        storage_locked,
        interrupted_while_storage_is_locked,
        storage_restarted,
        disk_full,
        checkpoint_damaged,
    )
}


def _one(subject: Subject, draw: Random) -> Coordinator | None:
    alive = subject.alive()
    return draw.choice(alive) if alive else None


def _kill_one(processes: list[Process], draw: Random, number: signal.Signals = signal.SIGKILL) -> str | None:
    if not processes:
        return None
    process = draw.choice(sorted(processes, key=lambda its: its.pid))
    process.send(number)
    return f"pid {process.pid}"


def _tell_to_stop(subject: Subject, coordinator: Coordinator) -> None:
    if subject.result.exists():
        coordinator.killed = True  # Python has no handlers any more while it ends
    else:
        coordinator.interrupted = True


def _ends(coordinator: Coordinator, seconds: float = 300) -> str:
    """Wait for a coordinator that was told to stop."""
    began = time.monotonic()
    try:
        coordinator.process.wait(seconds)
    except subprocess.TimeoutExpired:
        coordinator.deaf = True
        coordinator.signal_group(signal.SIGKILL)
    return f"stopped after {time.monotonic() - began:.1f} s"


@contextmanager
def _locked(subject: Subject, draw: Random) -> Iterator[str | None]:
    """Another program holds one of the SQLite stores; gives its name."""
    stores = sorted((subject.folder / "mlruns").glob("*.db"))
    if not stores:
        yield None
        return
    store: Path = draw.choice(stores)
    with closing(sqlite3.connect(store, timeout=120, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield store.name
        finally:
            connection.execute("ROLLBACK")
