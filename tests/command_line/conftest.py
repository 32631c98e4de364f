import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_helpers import Answer, Ask, Finished, train
from filelock import FileLock


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of pytest's workers."""
    return tmp_path_factory.getbasetemp().parent


@pytest.fixture(scope="session")
def smoke(shared: Path) -> list[str]:
    """A search that gives the same numbers whenever it is run; the tokens are made once."""
    return [
        "-m",
        "experiment=smoke",
        "norm=baseline,qk",
        "trainer.accelerator=cpu",
        "trainer.precision=fp32",
        "hydra.sweeper.workers=2",
        "hydra.sweeper.report_patience=null",
        f"data.cache_dir={shared / 'tokens'}",
    ]


@pytest.fixture(scope="session")
def finished(shared: Path, smoke: list[str]) -> Finished:
    """That search, undisturbed and with its report, run by whichever worker comes first."""
    cwd, answer = shared / "finished", shared / "finished.json"
    with FileLock(shared / "finished.lock"):
        if not answer.exists():
            cwd.mkdir()
            done = train(*smoke, "hydra.sweeper.report_patience=300", cwd=cwd)
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
    server.wait(30)
    server.stdout.close()
