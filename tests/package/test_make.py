"""`make setup` takes the newest Python that runs."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def setup(path: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """What it would do, with nothing done, where ``path`` comes first on the PATH."""
    environment = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHON", None)
    command = ["make", "--dry-run", "--always-make", ".venv/installed", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_python_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    for name, status in (("python3.13", 127), ("python3.12", 0), ("python3.11", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    assert "\npython3.12 -m venv .venv\n" in setup(tmp_path).stdout
    assert "\n/my/python -m venv .venv\n" in setup(tmp_path, "PYTHON=/my/python").stdout
