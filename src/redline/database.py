"""Databases by URL: how a dead connection is found out, and who opens a fresh one first."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import URL, NullPool, create_engine, make_url, text

_FIRST_OPENING = 78_165  # an advisory lock's name: any number, the same for everybody


def connect_arguments(url: URL) -> dict[str, Any]:
    """What ends a wait for a server that is gone, on our side and on the server's; ``url`` may say otherwise.

    TCP alone takes from a quarter of an hour to two hours. The server ends a transaction whose client has
    fallen silent, or its locks would stop everybody else.
    """
    if url.get_driver_name() != "psycopg":
        return {}
    seconds = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    arguments = {**seconds, "tcp_user_timeout": 15_000}  # milliseconds
    arguments = {key: value for key, value in arguments.items() if key not in url.query}
    servers_side = "-c idle_in_transaction_session_timeout=15s -c tcp_keepalives_idle=10"
    return {**arguments, "options": f"{servers_side} {_last(url.query.get('options', ''))}".strip()}


def _last(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else value[-1]


@contextmanager
def first_opening(url: str) -> Iterator[None]:
    """Keeps other processes out while the tables behind ``url`` are made.

    Those who open a fresh database at the same moment would crash each other.
    """
    if url.startswith("sqlite"):
        file = make_url(url).database
        if file is not None and Path(file).absolute().parent.is_dir():
            # It may be begun on one thread and ended on another.
            with FileLock(f"{file}.lock", thread_local=False):
                yield
            return
    elif url.startswith("postgresql"):
        with _advisory_lock(make_url(url)):
            yield
        return
    yield


def make_whole(url: str, make: Callable[[str], object]) -> None:
    """Make a fresh SQLite file whole or not at all: ``make`` opens it under another name.

    For tables that cannot be opened again once a kill has left them half made. To be called within
    ``first_opening``; does nothing where the file is there already, nor for a server.
    """
    parsed = make_url(url)
    file = parsed.database if parsed.get_backend_name() == "sqlite" else None
    if file is None or Path(file).exists():
        return
    unfinished = Path(f"{file}.tmp")
    unfinished.unlink(missing_ok=True)
    make(parsed.set(database=str(unfinished)).render_as_string(hide_password=False))
    unfinished.replace(file)


@contextmanager
def _advisory_lock(url: URL) -> Iterator[None]:
    engine = create_engine(
        url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=connect_arguments(url)
    )
    with engine.connect() as connection:  # its end gives the lock back, whatever happens
        connection.execute(text("SELECT pg_advisory_lock(:name)"), {"name": _FIRST_OPENING})
        yield
