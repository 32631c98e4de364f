import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_helpers import Answer, Ask


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
