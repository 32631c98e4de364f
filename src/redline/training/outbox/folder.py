"""The outbox on disk: a folder for each run, which the run appends to and a sender reads.

``<outbox>/<store>/<run key>/`` holds ``records.jsonl``, a line of JSON for each thing logged; ``files/``, the
artifacts; and ``sent.json``, how far MLflow has them. A killed run leaves at most a torn line, which is
skipped. A killed sender may have sent a batch without noting it; that one is sent again.
"""

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from filelock import FileLock, Timeout

from redline.secrets import without_password

Record = dict[str, Any]

_RECORDS = "records.jsonl"
_OPENING = 2.0  # seconds; a sender's look at the lock takes microseconds


@dataclass(frozen=True)
class Outbox:
    """Where the runs of one store wait. The fields are keys of ``conf/tracker/mlflow.yaml``."""

    outbox: str
    tracking_uri: str
    artifact_location: str
    send_every: float
    send_timeout: float

    @classmethod
    def of(cls, tracker: Mapping[str, Any]) -> Self | None:
        """That of the configuration's group ``tracker``, where it has one."""
        spec = next((spec for spec in tracker.values() if "outbox" in spec), None)
        return None if spec is None else cls(**{field.name: spec[field.name] for field in fields(cls)})

    @property
    def store(self) -> str:
        return without_password(self.tracking_uri)

    @property
    def folder(self) -> Path:
        return Path(self.outbox).absolute() / quote(self.store, safe="")

    def lock(self, name: str) -> FileLock:
        """``sender``: held by the sender while it lives. ``opening``: keeps a run from being opened while it
        is removed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f".{name}.lock")

    @property
    def has_sender(self) -> bool:
        return _is_held(self.lock("sender"))

    def open(self, key: str) -> "RunWriter":
        """Begin, or go on with, the run ``key``. Raises filelock.Timeout where a process is writing it."""
        folder = self.folder / key
        with self.lock("opening"):
            folder.mkdir(exist_ok=True)
            lock = FileLock(folder / "writer.lock")
            lock.acquire(timeout=_OPENING)
            return RunWriter(folder, lock)

    def runs(self) -> list["RunFolder"]:
        """Those with something to send or still being written, the oldest first."""
        return [RunFolder(path.parent) for path in sorted(self.folder.glob(f"[!.]*/{_RECORDS}"))]

    def waiting(self) -> int:
        """How many runs have ended and are not all sent."""
        return sum(not run.is_open for run in self.runs())

    def remove(self, run: "RunFolder") -> None:
        """Forget a run that is sent, unless it has been opened again meanwhile."""
        with self.lock("opening"):
            if not run.is_open and not run.read(run.sent().offset)[0]:
                # Renamed first: a half-deleted folder would be sent again.
                shutil.rmtree(run.path.rename(self.folder / f".sent-{uuid.uuid4().hex}"), ignore_errors=True)

    def note_trouble(self, trouble: str) -> None:
        """Why the store takes nothing now."""
        (self.folder / "trouble.txt").write_text(trouble)

    def trouble(self) -> tuple[str, int] | None:
        """The trouble noted last, and when, by the file system's clock."""
        path = self.folder / "trouble.txt"
        return (path.read_text(), path.stat().st_mtime_ns) if path.exists() else None

    def waits(self, why: str, runs: int) -> str:
        """A line for the user, of that many runs."""
        return (
            f"{self.store}: does not take all metrics now ({why}); those of {runs} run(s) wait in "
            f"{self.folder}, and the next run or `redline send` sends them"
        )


@dataclass(frozen=True)
class Sent:
    """How far a run is sent; the sender's to write."""

    offset: int = 0  # bytes of the records
    run_id: str | None = None  # MLflow's
    ended: bool = False  # MLflow knows how it ended


class RunFolder:
    """One run, as its sender sees it."""

    def __init__(self, path: Path) -> None:
        self.path, self.key = path, path.name

    @property
    def is_open(self) -> bool:
        """Whether a living process writes it."""
        return _is_held(FileLock(self.path / "writer.lock"))

    def read(self, offset: int, at_most: int = 1 << 16) -> tuple[list[Record], int]:
        """The records from ``offset`` on, about ``at_most`` bytes of them; and where they end."""
        with (self.path / _RECORDS).open("rb") as file:
            file.seek(offset)
            lines = [line for line in file.readlines(at_most) if line.endswith(b"\n")]
        return [record for line in lines if (record := _parsed(line))], offset + sum(map(len, lines))

    def sent(self) -> Sent:
        path = self.path / "sent.json"
        return Sent(**(_parsed(path.read_bytes()) or {})) if path.exists() else Sent()

    def note_sent(self, sent: Sent) -> None:
        # Not atomic_write: that waits for the disk, and what a power cut takes from here is sent again.
        unfinished = self.path / "sent.json.tmp"
        unfinished.write_text(json.dumps(asdict(sent)))
        unfinished.replace(self.path / "sent.json")

    def file(self, name: str) -> Path:
        """Of an artifact, whose name may have folders in it."""
        return self.path / "files" / name

    def refuse(self, what: str, why: Exception) -> None:
        """Note what the store will never take; it is left out."""
        with (self.path.parent / "refused.txt").open("a") as file:
            file.write(f"{self.key}: {what}: {without_password(' '.join(str(why).split()))}\n")


class RunWriter(RunFolder):
    """One run, as it writes itself. A record is in the file before ``append`` returns."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        super().__init__(path)
        self._lock = lock
        self._file = (path / _RECORDS).open("ab")

    def append(self, kind: str, **record: Any) -> None:
        line = json.dumps({"kind": kind, **record}, separators=(",", ":"))
        self._file.write(b"\n%s\n" % line.encode())  # on its own line, also after one that was torn
        self._file.flush()

    def append_file(self, name: str, content: bytes) -> None:
        path = self.file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)  # whole before its record is; training does not wait for the disk
        self.append("artifact", name=name)

    def close(self) -> None:
        self._file.close()
        self._lock.release()


def run_page(ui: str, run_id: str) -> str:
    """The address of a run in MLflow's UI at ``ui``."""
    return f"{without_password(ui).rstrip('/')}/#/runs/{run_id}"


def _is_held(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # its folder was removed meanwhile
        return False
    lock.release()
    return False


def _parsed(line: bytes) -> Record | None:
    try:
        return json.loads(line)
    except ValueError:  # torn, or the empty line between two
        return None
