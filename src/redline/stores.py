"""Whether an address is that of a store, Optuna's or MLflow's, and whether its server answers."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from sqlalchemy import URL, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from redline.database import connect_arguments
from redline.errors import UserError
from redline.files import why_unwritable
from redline.secrets import without_password

ALLOWED = "allowed: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE"
_SERVERS = ("http://", "https://", "databricks")
_DATABASES = ("sqlite://", "postgresql", "mysql", "mssql")
_SQLITE = b"SQLite format 3\0"  # how such a file begins
_REACHED_WITHIN = 8.0  # seconds in which a server must take a first connection


def check_database(url: str, key: str, home: Path | None = None) -> URL:
    """Raise UserError for what is no database's URL, and for an SQLite file that cannot be opened or made.

    ``key``: what the user calls it. No server is asked, nothing is left. ``home``: a folder that need not be
    there yet.
    """
    escape = f"{key}: does not open (a space, or an @ in a name or password); {ALLOWED}, with %20 and %40"
    if re.search(r"\s", url) and not url.startswith("sqlite"):
        raise UserError(escape)
    name = f"{key}={without_password(url)}"
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, ValueError) as error:
        raise UserError(f"{name}: does not open (not a database's URL); {ALLOWED}") from error
    if parsed.get_backend_name() == "sqlite":
        why = _why_no_sqlite(parsed, home)
        if why is not None:
            raise UserError(f"{name}: does not open ({why}); {ALLOWED}")
    # Such a password would be taken for a part of the host's name, and shown as that.
    elif "@" in f"{parsed.host} {parsed.database}":
        raise UserError(escape)
    return parsed


def check_tracking_uri(uri: str, key: str, home: Path | None = None) -> None:
    """Raise UserError for what is no address of an MLflow store. No server is asked."""
    if not uri.startswith((*_SERVERS, *_DATABASES)):
        raise UserError(f"{key}={without_password(uri)}: {ALLOWED} or http://HOST:PORT")
    if not uri.startswith(_SERVERS):
        check_database(uri, key, home)


def reach_store(uri: str) -> None:
    """As `reach`, of an MLflow store. Of a file nothing is asked."""
    if uri.startswith("http"):
        _within_seconds(lambda: _ask(uri))
    elif not uri.startswith(("sqlite", *_SERVERS)):
        reach(make_url(uri))


def reach(url: URL) -> None:
    """Connect to a database's server once. Raises what the driver does where none answers."""
    engine = create_engine(url, poolclass=NullPool, connect_args=connect_arguments(url))
    _within_seconds(lambda: engine.connect().close())


def first_line(error: BaseException) -> str:
    """Of what a driver says, without a password."""
    return without_password((str(error).strip().splitlines() or [type(error).__name__])[0])


def _ask(uri: str) -> None:
    try:
        with urlopen(uri, timeout=_REACHED_WITHIN):
            return
    except HTTPError:  # an answer too
        return
    except URLError as error:
        if not isinstance(error.reason, SSLError):  # MLflow may have been told to trust it
            raise


def _within_seconds(connect: Callable[[], object]) -> None:
    done, errors = threading.Event(), list[Exception]()

    def work() -> None:
        try:
            connect()
        # The caller raises it.
        except Exception as error:  # noqa: BLE001
            errors.append(error)
        done.set()

    # A daemon: to find out a host's address can take long, and nothing ends that.
    threading.Thread(target=work, daemon=True).start()
    if not done.wait(_REACHED_WITHIN):
        raise TimeoutError(f"no answer within {_REACHED_WITHIN:g} s")
    if errors:
        raise errors[0]


def _why_no_sqlite(url: URL, home: Path | None) -> str | None:
    path = Path((url.database or "").removeprefix("file:"))
    if not url.database or url.database == ":memory:":
        return None
    try:
        if path.is_file():
            with path.open("rb") as file:
                begin = file.read(len(_SQLITE))
            return None if begin in (b"", _SQLITE) else "not a database"
        if path.exists():
            return "not a file"
        if not path.parent.is_dir() and (home is None or path.parent.absolute() != home.absolute()):
            return f"{path.parent}: no such folder"
    except OSError as error:
        return error.strerror
    return why_unwritable(path.parent)
