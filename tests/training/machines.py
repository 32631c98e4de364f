"""What starts agents on machines: here by forks, each perhaps in a network of its own."""

import ctypes
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from redline.training.ranks.launcher import run_agent

_CLONE_NEWNET = 0x40000000


def enter(network: str | None, interface: str | None) -> None:
    """From now on this process is in that namespace."""
    if network is not None:
        with open(f"/var/run/netns/{network}") as file:
            assert ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) == 0
        assert interface is not None
        os.environ["GLOO_SOCKET_IFNAME"] = interface


class Command:
    """As `subprocess.Popen` of a command that runs an agent in each of ``places``: a namespace and its wire.

    Like a cluster's, it ends agents only where it reaches them: not in those ``out_of_reach``.
    """

    places: Sequence[tuple[str | None, str | None]] = ((None, None),) * 2
    out_of_reach: Sequence[int] = ()

    def __init__(self, words: list[str], **_: Any) -> None:
        self.words = words
        self.stdin = _Input(self)
        self.agents: list[Any] = []

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait(10)

    def fork(self, order: bytes) -> None:
        def agent(place: tuple[str | None, str | None]) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            enter(*place)
            sys.stdin = io.TextIOWrapper(io.BytesIO(order))
            run_agent()

        fork = multiprocessing.get_context("fork")
        self.agents = [fork.Process(target=agent, args=(place,)) for place in self.places]
        for its in self.agents:
            its.start()

    @property
    def _reached(self) -> list[Any]:
        return [its for place, its in enumerate(self.agents) if place not in self.out_of_reach]

    @property
    def returncode(self) -> int | None:
        codes = [its.exitcode for its in self._reached]
        return None if None in codes else max(codes, key=abs)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        while self.returncode is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("agents", timeout)
            time.sleep(0.02)

    def terminate(self) -> None:
        for its in self._reached:
            its.terminate()

    def kill(self) -> None:
        for its in self._reached:
            its.kill()


class _Input(io.BytesIO):
    """Given to each agent once it is closed."""

    def __init__(self, command: Command) -> None:
        super().__init__()
        self.command = command

    def close(self) -> None:
        if not self.closed:
            self.command.fork(self.getvalue())
        super().close()
