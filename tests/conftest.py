"""What the tests share: one thread each, composed configurations, a finished search, a PostgreSQL server."""

import copy
import functools
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from command_helpers import Answer, Ask, Finished, train
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
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of pytest's workers, and for this session alone."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def smoke(shared: Path) -> list[str]:
    """A search that gives the same numbers whenever it is run; the tokens are made once."""
    return [
        "-m",
        "experiment=smoke",
        # All of the grid is run: which runs a search chooses depends on the order in which they end.
        "hydra.sweeper.resolution=1.0001",
        "hydra.sweeper.settled=1",
        "hydra.sweeper.extend=false",
        "hydra.sweeper.cut=0",
        "norm=baseline,qk",
        "trainer.accelerator=cpu",
        "trainer.precision=fp32",
        "hydra.sweeper.workers=2",
        "hydra.sweeper.report_timeout=null",
        "tracker.mlflow.send_timeout=600",
        f"data.cache_dir={shared / 'tokens'}",
    ]


@pytest.fixture(scope="session")
def finished(shared: Path, smoke: list[str]) -> Finished:
    """That search, undisturbed and with its report, run by whichever worker comes first."""
    cwd, answer = shared / "finished", shared / "finished.json"
    with FileLock(shared / "finished.lock"):
        if not answer.exists():
            cwd.mkdir()
            done = train(*smoke, "hydra.sweeper.report_timeout=1200", cwd=cwd)
            answer.write_text(json.dumps(vars(done)))
    return Finished(cwd, Answer(**json.loads(answer.read_text())))


@pytest.fixture(scope="session")
def ask() -> Iterator[Ask]:
    """``ask(*arguments, cwd=…)``: as `train`, in a fork of a process that has torch imported."""
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("warm_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def one(*arguments: str, cwd: Path, before: str = "") -> Answer:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps({"arguments": arguments, "cwd": str(cwd), "before": before}) + "\n")
        server.stdin.flush()
        return Answer(**json.loads(server.stdout.readline()))

    yield one
    server.stdin.close()
    server.wait(300)
    server.stdout.close()


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Hugging Face's `transformers`, from the benchmarks' folder; found during a test only, as torchmetrics
    imports it wherever it finds it.
    """
    folder = Path(__file__).parents[1] / ".venv/bench"
    if not (folder / "transformers").is_dir():
        assert "REDLINE_TEST_PEERS" not in os.environ, f"no transformers in {folder}"
        pytest.skip(f"no transformers in {folder}: make .venv/bench/installed")
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module("transformers")


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
