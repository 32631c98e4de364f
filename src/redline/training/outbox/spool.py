"""The outbox: a folder per run. The run appends records to it, a sender takes them off.

A record is a line of JSON, and never changed. A killed writer leaves at most a torn last line, which nobody
reads; a killed sender sends at most once more what it had sent last, which MLflow takes for the same.
"""

import hashlib
import json
import mmap
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from redline.files import atomic_write

_RECORDS, _HEADER, _STATE, _FILES, _ENDED = "records.jsonl", "run.json", "state.json", "files", "ended"
_OPENING = 2.0  # seconds; a sender's look at the lock takes microseconds


def without_password(text: str) -> str:
    """``text`` with what stands before the @ of a URL hidden."""
    return re.sub(r"//\S*@", "//***@", text)


def waiting_text(store: str, trouble: str | None, outbox: "Outbox") -> str:
    return (
        f"{store}: does not take all metrics now ({trouble or 'it is slow'}); they wait in {outbox.folder}, "
        "and the next run or `make send` sends them"
    )


@dataclass
class State:
    """How far a run's records are sent; the sender's to write."""

    offset: int = 0  # bytes of the records
    run_id: str | None = None  # MLflow's
    running: bool = False  # in MLflow


class Outbox:
    """``folder`` holds the runs' folders, of one store or of several."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()

    def open(self, key: str, header: Mapping[str, Any]) -> "Spool":
        """Begin, or go on with, the records of the run ``key``.

        ``header`` says which store the run belongs to, and how to create it there if it has a ``start_time``.
        Raises filelock.Timeout where another process is writing them.
        """
        folder = self.folder / key
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            folder.mkdir(exist_ok=True)
            lock = FileLock(folder / "writer.lock")
            lock.acquire(timeout=_OPENING)
            if "start_time" in header or not (folder / _HEADER).exists():
                with atomic_write(folder / _HEADER) as file:
                    file.write(json.dumps(header).encode())
            return Spool(self, key, lock)

    def parcels(self, store: str) -> list["Parcel"]:
        """The runs of one store; ``store`` is its URL without the password."""
        headers = {path.parent: _read_json(path) for path in sorted(self.folder.glob(f"*/{_HEADER}"))}
        return [
            Parcel(self, folder, header)
            for folder, header in headers.items()
            if header is not None and header["store"] == store
        ]

    def note_trouble(self, store: str, trouble: str | None) -> None:
        """What keeps a store from taking anything, for the runs to see; None: nothing."""
        if trouble is None:
            self._trouble(store).unlink(missing_ok=True)
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_json(self._trouble(store), {"trouble": trouble, "time": time.time()})

    def trouble(self, store: str, since: float) -> str | None:
        """The trouble noted since then, in seconds since the epoch."""
        noted = _read_json(self._trouble(store))
        return noted["trouble"] if noted and noted["time"] >= since else None

    def remove(self, parcel: "Parcel", offset: int) -> None:
        """Forget a run that nobody writes and that has no record after ``offset``."""
        with FileLock(self.folder / ".lock"):
            if parcel.folder.exists() and not parcel.is_open and parcel.size == offset:
                # At once and then at leisure: a sender may be looking into it.
                gone = parcel.folder.rename(self.folder / f".sent-{uuid.uuid4().hex}")
                shutil.rmtree(gone, ignore_errors=True)

    def _trouble(self, store: str) -> Path:
        return self.folder / f".trouble-{hashlib.sha256(store.encode()).hexdigest()[:8]}.json"


class Spool:
    """The writing end of a run's records. A record reaches the file before ``append`` returns."""

    def __init__(self, outbox: Outbox, key: str, lock: FileLock) -> None:
        self.outbox, self.key = outbox, key
        self.folder = outbox.folder / key
        self._lock = lock
        self._file = (self.folder / _RECORDS).open("ab", buffering=0)
        self._file.truncate(_whole_lines(self.folder / _RECORDS))
        (self.folder / _ENDED).unlink(missing_ok=True)

    def append(self, kind: str, **record: Any) -> None:
        line = json.dumps({"kind": kind, **record}, separators=(",", ":")) + "\n"
        left = memoryview(line.encode())
        while left:
            left = left[self._file.write(left) :]

    def append_file(self, name: str, content: bytes) -> None:
        """A file to become an artifact of the name ``name``, which may have folders in it."""
        path = self.folder / _FILES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)  # whole before its record is; training does not wait for the disk
        self.append("artifact", name=name)

    def hurry(self) -> None:
        """Nothing more will be appended: the sender need not wait for a batch to fill."""
        (self.folder / _ENDED).touch()

    def close(self) -> None:
        self._file.close()
        self._lock.release()
        if self.is_sent:
            self.outbox.remove(self._sent_end, self._sent_end.state().offset)

    @property
    def run_id(self) -> str | None:
        """MLflow's, once the run is there."""
        return self._sent_end.state().run_id

    @property
    def bytes_sent(self) -> int:
        return self._sent_end.state().offset

    @property
    def is_sent(self) -> bool:
        return self.bytes_sent == self._sent_end.size

    @property
    def _sent_end(self) -> "Parcel":
        return Parcel(self.outbox, self.folder, {})


@dataclass
class Parcel:
    """The sender's end of a run's records."""

    outbox: Outbox
    folder: Path
    header: dict[str, Any]

    @property
    def key(self) -> str:
        return self.folder.name

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Keeps other senders away; False where one is at it."""
        lock = FileLock(self.folder / "sender.lock")
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):  # OSError: sent and removed meanwhile
            yield False
            return
        try:
            yield (self.folder / _HEADER).exists()
        finally:
            lock.release()

    @property
    def is_open(self) -> bool:
        """Whether a living process writes it."""
        lock = FileLock(self.folder / "writer.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:  # sent and removed meanwhile
            return False
        lock.release()
        return False

    @property
    def is_hurried(self) -> bool:
        return (self.folder / _ENDED).exists()

    @property
    def size(self) -> int:
        """Bytes of whole records; of a torn one nothing, once its writer is gone."""
        path = self.folder / _RECORDS
        return _whole_lines(path) if path.exists() else 0

    def state(self) -> State:
        return State(**(_read_json(self.folder / _STATE) or {}))

    def save(self, state: State) -> None:
        _write_json(self.folder / _STATE, asdict(state))

    def read(self, offset: int, at_most: int) -> tuple[list[dict[str, Any]], int]:
        """The records from ``offset`` on, at least one and about ``at_most`` bytes; and where they end."""
        with (self.folder / _RECORDS).open("rb") as file:
            file.seek(offset)
            lines = file.readlines(at_most)
        whole = [line for line in lines if line.endswith(b"\n")]
        return [json.loads(line) for line in whole], offset + sum(map(len, whole))

    def file(self, name: str) -> Path:
        return self.folder / _FILES / name

    def refuse(self, what: str, why: Exception) -> None:
        """Note what the store will never take; it is left out."""
        with (self.outbox.folder / "refused.txt").open("a") as file:
            file.write(f"{self.key}: {what}: {without_password(' '.join(str(why).split()))}\n")


def _whole_lines(path: Path) -> int:
    """Bytes up to the last end of a line."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.rfind(b"\n") + 1


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):  # ValueError: a power cut
        return None


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    # Not atomic_write: that one waits for the disk, and what a power cut takes from here is sent again.
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    unfinished.write_text(json.dumps(value))
    unfinished.replace(path)
