"""The processes of a search under test, found by what each inherits: a mark in its environment."""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "REDLINE_FAULTS_MARK"


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    command: str

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @property
    def forked(self) -> bool:
        """Whether it is a forkserver, or one of the jobs that keep its command line."""
        return "multiprocessing.forkserver" in self.command


def marked(mark: str) -> list[Process]:
    """Living processes; a zombie has no environment any more."""
    found = []
    wanted = f"{MARK}={mark}".encode()
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                found.append(Process(int(place.name), parent, command))
    return found


def forkservers(processes: list[Process]) -> list[Process]:
    forked = {process.pid for process in processes if process.forked}
    coordinators = {process.pid for process in processes if not process.forked}
    return [p for p in processes if p.pid in forked and p.parent in coordinators]


def senders(processes: list[Process]) -> list[Process]:
    """Those that give to MLflow what the trials logged."""
    return [process for process in processes if "redline.training.outbox" in process.command]


def jobs(processes: list[Process]) -> list[Process]:
    """Trials, and what comes before and after them; also those that outlived their forkserver."""
    servers = {process.pid for process in forkservers(processes)}
    return [process for process in processes if process.forked and process.pid not in servers]


def ranks(processes: list[Process]) -> list[Process]:
    """Of trials on several devices: forked from the job that a trial is."""
    own = {process.pid for process in jobs(processes)}
    return [process for process in jobs(processes) if process.parent in own]


def launchers(processes: list[Process]) -> list[Process]:
    """Jobs that have ranks."""
    parents = {rank.parent for rank in ranks(processes)}
    return [process for process in jobs(processes) if process.pid in parents]
