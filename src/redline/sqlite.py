"""SQLite files, which crash those who open a fresh one at the same moment."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import make_url


def first_opening(url: str) -> AbstractContextManager[Any]:
    """Keeps other processes out while the tables behind ``url`` are made; does nothing for a server."""
    file = make_url(url).database if url.startswith("sqlite") else None
    if file is None or not Path(file).absolute().parent.is_dir():
        return nullcontext()
    return FileLock(f"{file}.lock")
