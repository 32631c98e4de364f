"""Files that a reader finds complete or not at all, even if their writer is killed; folders to write into."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from redline.errors import UserError

_TRIES = 10


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which replaces ``path`` once it is complete and on disk.

    A killed writer leaves a ``*.tmp`` file beside it.
    """
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_writable(folder: str | Path, key: str) -> None:
    """Raise UserError, naming ``key``, where ``folder`` cannot be made or written; leaves nothing."""
    if (why := why_unwritable(folder)) is not None:
        raise UserError(f"{key}={folder}: cannot be made or written ({why}); allowed: a writable folder")


def why_unwritable(folder: str | Path) -> str | None:
    """In the system's words; None where ``folder`` is there, or can be made, and a file within it."""
    if not str(folder):
        return "no folder is named"
    for _ in range(_TRIES):
        error = _try_to_write(Path(folder).absolute())
        # A folder that is gone again: another process looks in the same way at the same time.
        if not isinstance(error, FileNotFoundError):
            break
    return None if error is None else error.strerror or str(error)


def _try_to_write(path: Path) -> OSError | None:
    made = list[Path]()
    try:
        for part in reversed([its for its in (path, *path.parents) if not its.exists()]):
            part.mkdir(exist_ok=True)
            made.append(part)
        with tempfile.TemporaryFile(dir=path):
            return None
    except OSError as error:
        return error
    finally:
        for part in reversed(made):
            with suppress(OSError):  # another process has put something into it
                part.rmdir()
