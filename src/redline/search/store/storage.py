"""From a URL to a storage that is open."""

import re
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from redline.database import connect_arguments, first_opening
from redline.errors import UserError
from redline.search.store.patient_storage import PatientStorage

# Optuna warns of a missing answer in many lines; the search does in one.
optuna.logging.set_verbosity(optuna.logging.ERROR)

_ALLOWED = "allowed: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE"


def open_storage(url: str, timeout: float, key: str = "storage") -> PatientStorage:
    """The storage behind ``url``, which is waited for ``timeout`` seconds if it goes away later.

    ``key``: what the user calls it. Raises UserError, naming it but no password, where it does not open now.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        # The part before the last @ may hold a password, and the reason a part of it.
        shown = re.sub(r"//.*@", "//***@", url, flags=re.DOTALL)
        raise UserError(f"{key}={shown}: does not open (not a database's URL); {_ALLOWED}") from error
    name = f"{key}={_shown(parsed)}"
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
        reason = str(error).strip().splitlines()[0]
        if isinstance(error, ImportError) and parsed.get_driver_name() == "psycopg":
            reason = f"{reason}: install it with `pip install 'psycopg[binary]'`"
        raise UserError(f"{name}: does not open ({reason}); {_ALLOWED}") from error
    return PatientStorage(  # type: ignore[abstract]
        optuna.storages.get_storage(storage), name, timeout
    )


def _shown(url: URL) -> str:
    """As the user wrote it, but for the password."""
    secret = {key: "***" for key in url.query if "password" in key}
    return url.update_query_dict(secret).render_as_string(hide_password=True)
