"""What is logged for MLflow waits on disk until MLflow has it.

A run only writes files of its own. A sender, one process for all runs of a store, makes MLflow's runs what
these files say, as often as it takes, and ends by itself. So a store that is slow or gone neither slows nor
ends training, and what was logged arrives later, whichever process is killed.

``<outbox>/<store>/<run key>/`` holds ``state.json``, the run's tags, parameters and status, written
whole when one changes; ``metrics.jsonl``, to which a step appends a line; ``files/``, artifacts that are
not sent; and ``run_id``, MLflow's, from the sender. A killed run leaves at most a torn line; it is skipped.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote

from filelock import FileLock, Timeout

from redline.secrets import without_password

BATCH = 1 << 18  # bytes of metrics
OUTBOX = "REDLINE_OUTBOX"  # the variable that tells a sender its outbox
_OPENING = 2.0  # seconds; a sender's look at the lock takes microseconds
_POLL = 0.1  # seconds
_started: dict[Path, subprocess.Popen[bytes]] = {}  # by the outbox's folder


@dataclass(frozen=True)
class RunState:
    """What a run in MLflow should be, but for its metrics and artifacts. Times are in milliseconds."""

    experiment: str
    name: str
    began: int
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    status: str = "RUNNING"
    ended: int | None = None


class RunFolder:
    """One run. Its process holds the lock ``writing`` while it lives."""

    def __init__(self, path: Path) -> None:
        self.path, self.key, self.files = path, path.name, path / "files"
        self.writing = FileLock(path / "writer.lock")

    @property
    def run_id(self) -> str | None:
        """MLflow's, once it has the run."""
        path = self.path / "run_id"
        return path.read_text() or None if path.exists() else None

    def state(self) -> RunState | None:
        path = self.path / "state.json"
        return RunState(**json.loads(path.read_bytes())) if path.exists() else None

    @cached_property
    def _metrics(self) -> IO[bytes]:
        # Kept open: a shared file system waits at each opening and closing.
        return (self.path / "metrics.jsonl").open("ab", buffering=0)

    def append(self, step: int, time: int, values: Mapping[str, float]) -> None:
        """Metrics; they are in the file before this returns."""
        line = json.dumps([step, time, values], separators=(",", ":"))
        self._metrics.write(b"\n%s\n" % line.encode())  # on its own line, also after one that was torn

    def close(self) -> None:
        """Nothing more is written here."""
        self._metrics.close()
        self.writing.release()

    def metrics(self, offset: int) -> tuple[list[Any], int]:
        """Those from ``offset`` on, `BATCH` bytes of them or all that there are; and where they end."""
        with (self.path / "metrics.jsonl").open("rb") as file:
            file.seek(offset)
            lines = [line for line in file.readlines(BATCH) if line.endswith(b"\n")]
        whole = [json.loads(line) for line in lines if line.endswith(b"}]\n")]  # as no torn one does
        return whole, offset + sum(map(len, lines))


@dataclass(frozen=True)
class Outbox:
    """Where the runs of one store wait. The fields are keys of ``conf/tracker/mlflow.yaml``."""

    outbox: str
    tracking_uri: str
    artifact_location: str
    send_every: float
    send_timeout: float
    ui: str | None

    @classmethod
    def of(cls, tracker: Mapping[str, Any]) -> Self | None:
        """That of the configuration's group ``tracker``, where it has one."""
        spec = tracker.get("mlflow")
        return None if spec is None else cls(**{its.name: spec[its.name] for its in fields(cls)})

    @property
    def store(self) -> str:
        return without_password(self.tracking_uri)

    @property
    def folder(self) -> Path:
        return Path(self.outbox).absolute() / quote(self.store, safe="")

    def page(self, path: str) -> str | None:
        """The address of a page of MLflow's UI, where there is one."""
        return None if self.ui is None else f"{without_password(self.ui).rstrip('/')}/#/{path}"

    def lock(self, name: str) -> FileLock:
        """``sender``: held while it lives. ``opening``: no run is removed while it is opened."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f".{name}.lock")

    def open(self, key: str) -> RunFolder:
        """Begin, or go on with, the run ``key``. Raises filelock.Timeout where a process is writing it."""
        run = RunFolder(self.folder / key)
        with self.lock("opening"):
            run.files.mkdir(parents=True, exist_ok=True)
            run.writing.acquire(timeout=_OPENING)
            (run.path / "metrics.jsonl").touch()
        return run

    def runs(self) -> list[RunFolder]:
        """Those with something to send or still being written, the oldest first."""
        return [RunFolder(path.parent) for path in sorted(self.folder.glob("[!.]*/state.json"))]

    def remove(self, run: RunFolder, state: RunState, offset: int) -> None:
        """Forget a run that is sent so far, unless it has been gone on with meanwhile."""
        with self.lock("opening"):
            if not is_held(run.writing) and run.state() == state and not run.metrics(offset)[0]:
                # Renamed first: a half-deleted folder would be sent again.
                shutil.rmtree(run.path.rename(self.folder / f".sent-{uuid.uuid4().hex}"), ignore_errors=True)

    @property
    def trouble(self) -> str:
        """Why the store takes nothing; empty where it does, or nobody has tried since this was made empty."""
        path = self.folder / "trouble.txt"
        return path.read_text() if path.exists() else ""

    def note_trouble(self, trouble: str) -> None:
        if self.folder.exists():
            (self.folder / "trouble.txt").write_text(trouble)

    def waits(self, why: str, runs: int) -> str:
        """A line for the user, of that many runs."""
        return (
            f"{self.store}: does not take all metrics now ({why}); those of {runs} run(s) wait in "
            f"{self.folder}, and the next run or `redline send` sends them"
        )


def start_sender(outbox: Outbox) -> None:
    """Start the outbox's sender where none is alive. No process can be had: the next run tries again."""
    ours = _started.get(outbox.folder)
    with suppress(OSError):
        if is_held(outbox.lock("sender")) or (ours is not None and ours.poll() is None):
            return
        told = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            # Not an argument, which everybody on the machine could read: there may be a password in it.
            OUTBOX: json.dumps(asdict(outbox)),
        }
        with (outbox.folder / "sender.log").open("ab") as log:
            _started[outbox.folder] = subprocess.Popen(
                [sys.executable, "-m", "redline.training.outbox"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C is for the run: its end is still to be sent
                env={**os.environ, **told},
            )


def drain(tracker: Mapping[str, Any], seconds: float | None = None) -> str | None:
    """Wait while what ended runs logged is sent, at most ``seconds`` (None: the tracker's ``send_timeout``).

    Ends at once where the store does not take it. ``tracker`` is the group of the configuration. Gives a line
    for the user; None: all is sent.
    """
    outbox = Outbox.of(tracker)
    if outbox is None:
        return None
    until = time.monotonic() + (outbox.send_timeout if seconds is None else seconds)
    outbox.note_trouble("")
    while (waiting := sum(not is_held(run.writing) for run in outbox.runs())) and time.monotonic() < until:
        if outbox.trouble:
            return outbox.waits(outbox.trouble, waiting)
        start_sender(outbox)
        time.sleep(_POLL)
    return outbox.waits("it is slow", waiting) if waiting else None


def is_held(lock: FileLock) -> bool:
    """Whether a living process has the lock, other than by this very object."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # its folder was removed meanwhile
        return False
    lock.release()
    return False
