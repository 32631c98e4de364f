"""From a URL to a storage that is open."""

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import URL

from redline.database import connect_arguments, first_opening
from redline.errors import UserError
from redline.search.store.patient_storage import PatientStorage
from redline.secrets import without_password
from redline.stores import ALLOWED, check_database, first_line, reach

# Optuna warns of a missing answer in many lines; the search does in one.
optuna.logging.set_verbosity(optuna.logging.ERROR)


def check_storage(url: str, key: str = "storage", home: Path | None = None) -> None:
    """Raise UserError, before anything is made, where ``url`` does not open or answer."""
    parsed = check_database(url, key, home)
    if parsed.get_backend_name() != "sqlite":
        try:
            reach(parsed)
        except Exception as error:
            raise _refusal(url, parsed, key, error) from error


def open_storage(url: str, timeout: float, key: str = "storage") -> PatientStorage:
    """The storage behind ``url``, which is waited for ``timeout`` seconds if it goes away later.

    ``key``: what the user calls it. Raises UserError, naming it but no password, where it does not open now.
    """
    parsed = check_database(url, key)
    options: dict[str, Any] = {"connect_args": connect_arguments(parsed)}
    if parsed.get_backend_name() == "sqlite":
        # Workers of one machine share the file: wait for each other's writes.
        options["connect_args"]["timeout"] = 60
    else:
        options["pool_pre_ping"] = True
    text = parsed.render_as_string(hide_password=False)
    try:
        with first_opening(text):
            storage = RDBStorage(text, engine_kwargs=options)
    # Whatever the driver raises, from a missing module to a refused connection, it is this URL.
    except Exception as error:
        raise _refusal(url, parsed, key, error) from error
    return PatientStorage(  # type: ignore[abstract]
        optuna.storages.get_storage(storage), f"{key}={without_password(url)}", timeout
    )


def _refusal(url: str, parsed: URL, key: str, error: Exception) -> UserError:
    reason = first_line(error)
    if isinstance(error, ImportError) and parsed.get_driver_name() == "psycopg":
        reason = f"{reason}: install it with `pip install 'psycopg[binary]'`"
    return UserError(f"{key}={without_password(url)}: does not open ({reason}); {ALLOWED}")
