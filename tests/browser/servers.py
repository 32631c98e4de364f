"""MLflow's UI and Optuna's dashboard, started as `make ui` and `make dashboard` start them."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from ports import free_port

ROOT = Path(__file__).parents[2]
_PATIENCE = 600.0  # seconds
_MLFLOW = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # as make ui


@contextmanager
def mlflow_ui(mlruns: Path) -> Iterator[str]:
    """Its address."""
    command = ["ui", "--workers", "1", "--backend-store-uri", f"sqlite:///{mlruns / 'mlflow.db'}"]
    with _serving([str(Path(sys.executable).parent / "mlflow"), *command], mlruns) as address:
        yield address


@contextmanager
def dashboard(mlruns: Path) -> Iterator[str]:
    """Its address."""
    command = [sys.executable, "-m", "redline.dashboard", f"sqlite:///{mlruns / 'optuna.db'}"]
    with _serving(command, mlruns) as address:
        yield address


@contextmanager
def _serving(command: Sequence[str], cwd: Path) -> Iterator[str]:
    port = free_port()
    environment = {**os.environ, **_MLFLOW, "PYTHONPATH": str(ROOT / "src")}
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # MLflow's has workers, which end with it
    )
    address = f"http://localhost:{port}"
    try:
        _wait_for(address, server)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def _wait_for(address: str, server: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=60).close()
            return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    server.kill()
    raise RuntimeError(f"{address} never answered: {server.communicate()[0]}")
