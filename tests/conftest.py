"""What the tests share: one thread each, configurations composed by Hydra, a PostgreSQL server."""

import copy
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from postgresql_server import PostgreSQL, installed
from redline.config import register

torch.set_num_threads(1)

_CONF = Path(__file__).parents[1] / "conf"


@functools.cache
def _compose(overrides: tuple[str, ...]) -> DictConfig:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(_CONF)):
        return compose("train", list(overrides))


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """Overrides as on the command line -> the configuration, the caller's own to change."""
    return lambda *overrides: copy.deepcopy(_compose(overrides))


@pytest.fixture(scope="session")
def postgresql_programs() -> Path:
    """Where there are none, tests are skipped, but not where the environment says that there must be."""
    programs = installed()
    if programs is None:
        assert "REDLINE_TEST_POSTGRESQL" not in os.environ, "no PostgreSQL server is installed"
        pytest.skip("no PostgreSQL server is installed")
    return programs


@pytest.fixture(scope="session")
def postgresql(postgresql_programs: Path) -> Iterator[PostgreSQL]:
    """A running server, one for each of pytest's workers: a test may restart it."""
    with PostgreSQL(postgresql_programs).running() as server:
        yield server
