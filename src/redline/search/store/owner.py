"""The process that runs a trial, and whether it still exists."""

import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


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

    def is_gone(self) -> bool:
        """True where the owner was a process of this machine that no longer exists."""
        return self.host == _host() and _started(self.pid) != self.started


class Silence:
    """Finds owners on other machines that give no heartbeat any more.

    Judged by this process' own monotonic clock between two readings, so that neither a stepped clock
    nor two machines that disagree about the time can end a living trial. Our own pauses do not count as the
    other's silence.
    """

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.timeout = timeout  # seconds
        self.clock = clock
        self._last: dict[str, tuple[int, float, float]] = {}  # by claim: heartbeat, silent for, read at

    def too_long(self, claim: str, heartbeat: int) -> bool:
        """True once ``heartbeat`` of a claim has not changed for ``timeout`` seconds of our reading it."""
        now = self.clock()
        seen, silent, read = self._last.get(claim, (None, 0.0, now))
        silent = silent + min(now - read, self.timeout / 2) if seen == heartbeat else 0.0
        self._last[claim] = (heartbeat, silent, now)
        return silent > self.timeout


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
        return "running"  # no /proc: only the pid can be checked
    # A zombie is dead, though its entry stays until its parent waits for it.
    return "" if fields[0] in "ZX" else fields[19]
