"""The storage of a search that has begun, opened for reading it."""

from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from redline.database import connect_arguments
from redline.errors import UserError
from redline.secrets import without_password


def open_begun(url: str) -> RDBStorage:
    """The storage at ``url``. Raises UserError where there is none with a search."""
    try:
        parsed = make_url(url)
        file = (parsed.database or "").removeprefix("file:")
        if parsed.get_backend_name() == "sqlite" and not Path(file).is_file():
            raise UserError(
                f"storage={without_password(url)}: no such file; "
                "allowed: the storage of a search that has begun"
            )
        return RDBStorage(
            parsed.render_as_string(hide_password=False),
            {"connect_args": connect_arguments(parsed), "pool_pre_ping": True},
            skip_table_creation=True,
        )
    # Without the driver's message, which may contain the password.
    except (ArgumentError, SQLAlchemyError, StorageInternalError, ImportError, RuntimeError) as error:
        raise UserError(
            f"storage: does not open ({type(error).__name__}); "
            "allowed: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE of a search that has begun"
        ) from error
