import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from coordinate import Coordinators

from postgresql_server import PostgreSQL
from redline.search.store.storage import open_storage


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optuna's tables, made once: that takes a second."""
    path = tmp_path_factory.mktemp("empty") / "optuna.db"
    open_storage(f"sqlite:///{path}", timeout=60.0)
    return path


@pytest.fixture
def url(empty_database: Path, tmp_path: Path) -> str:
    """A storage of this test's own."""
    shutil.copy(empty_database, tmp_path / "optuna.db")
    return f"sqlite:///{tmp_path / 'optuna.db'}"


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool changes the environment for its children; this puts it back."""
    for name in ("PYTHONPATH", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


@pytest.fixture
def coordinators() -> Iterator[Coordinators]:
    several = Coordinators()
    yield several
    several.kill()


@pytest.fixture
def database(postgresql: PostgreSQL) -> str:
    """The name of an empty database of this test's own."""
    return postgresql.new_database()
