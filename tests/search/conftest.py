import os
import shutil
from pathlib import Path

import pytest

from redline.search.study import open_storage


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optuna's tables, made once: that takes a second."""
    path = tmp_path_factory.mktemp("empty") / "optuna.db"
    open_storage(f"sqlite:///{path}")
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
