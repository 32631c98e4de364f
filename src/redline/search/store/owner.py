"""Who runs a trial, and how to tell that they are gone."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Owner:
    """A coordinator process and one claim of its, unique over machines and time."""

    host: str
    pid: int
    started: str  # of the process: a pid may be used again
    claim: str

    @classmethod
    def here(cls) -> "Owner":
        pid = os.getpid()
        return cls(_host(), pid, _started(pid), uuid.uuid4().hex)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def is_gone(self) -> bool:
        """True where the owner was a process of this machine that no longer exists."""
        return self.host == _host() and _started(self.pid) != self.started


def owner_of(attributes: Mapping[str, Any]) -> Owner:
    return Owner(**attributes["owner"])


class Silence:
    """Finds owners on other machines that have stopped beating.

    Judged by this process' own monotonic clock between two looks, so that neither a stepped clock
    nor two machines that disagree about the time can end a living trial. A long time without a look,
    as we were cut off or asleep, counts little: what cut us off may have cut them off too.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience = patience  # seconds
        self.clock = clock
        self._last: dict[str, tuple[int, float, float]] = {}  # by claim: beat, silent for, looked at

    def too_long(self, claim: str, beat: int) -> bool:
        """True once ``beat`` of a claim has not changed for ``patience`` seconds of our looking."""
        now = self.clock()
        seen, silent, looked = self._last.get(claim, (None, 0.0, now))
        silent = silent + min(now - looked, self.patience / 2) if seen == beat else 0.0
        self._last[claim] = (beat, silent, now)
        return silent > self.patience


def _host() -> str:
    """This machine since its last boot, as far as its pids reach: a container or a reboot makes another.

    Two containers may share name and boot, and neither sees the other's processes.
    """
    boot, processes = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    parts = [boot.read_text().strip() if boot.exists() else ""]
    if processes.is_symlink():
        parts.append(os.readlink(processes))
    return "/".join([socket.gethostname(), *parts])


def _started(pid: int) -> str:
    """When a process of this machine started, or the empty string where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return ""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "running"  # no /proc: the pid alone must do
    # A zombie is dead, though its entry stays until its parent looks.
    return "" if fields[0] in "ZX" else fields[19]
