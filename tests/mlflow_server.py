"""A real MLflow server, and what a network can do to it."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from ports import free_port


@dataclass
class Server:
    """`mlflow server`, one worker. ``store``: a database's URL; without one, SQLite in ``folder``."""

    folder: Path
    store: str = ""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        store = self.store or f"sqlite:///{self.folder / 'server.db'}"
        words = ["server", "--backend-store-uri", store, "--artifacts-destination", str(self.folder / "kept")]
        words += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *words],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    **os.environ,
                    "MLFLOW_DISABLE_TELEMETRY": "true",
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                },
            )

    def wait(self, seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=60):
                    return
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
                time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None


class Network:
    """A way to the server that may be slow, cut, or lose answers.

    ``held``: every answer is held back until it is False; ``answers`` counts those that were not. ``cut``:
    nobody is let in. ``lose``: the answer to the next request of this path is thrown away once the server has
    given it, and the connection with it.
    """

    def __init__(self, to: int) -> None:
        """``to``: the server's port."""
        self.to = to
        self.held, self.cut, self.lose = False, False, ""
        self._losing = False
        self.requests = self.answers = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            if self.cut:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                near.close()
                continue
            threading.Thread(target=self._carry, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, True), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while not self.cut and (piece := source.recv(1 << 16)):
                if answers:
                    while self.held:
                        time.sleep(0.01)
                    self.answers += 1
                    if self._losing:
                        self._losing = False
                        break
                elif piece.startswith((b"GET", b"POST", b"PUT", b"PATCH")):
                    self.requests += 1
                    if self.lose and self.lose.encode() in piece.partition(b"\r\n")[0]:
                        self.lose, self._losing = "", True
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
