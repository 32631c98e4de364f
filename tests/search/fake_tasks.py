"""Tasks for pools, and things to do at a search's end, that answer at once; importable by the children."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.errors import UserError
from redline.search import AtEnd, EndedSearch


def echo(n: int, send: Any) -> dict[str, Any]:
    send({"doing": "half way"})
    print("out of the task")
    print("and its complaints", file=sys.stderr)
    return {"doubled": 2 * n, "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}


def wait_for(path: Path, send: Any) -> str:
    while not path.exists():
        time.sleep(0.02)
    return "it is there"


def send_too_much(send: Any) -> None:
    print(os.getpid())
    send({"more than a pipe holds": "x" * (1 << 22)})


def users_mistake(send: Any = None) -> None:
    raise UserError("lr=-1: allowed: numbers above 0")


def bug(send: Any = None) -> None:
    raise RuntimeError("a bug of ours")


def leave(send: Any = None) -> None:
    sys.exit(3)


def die(send: Any = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(send: Any = None) -> None:
    if send is not None:
        send({"pid": os.getpid()})
    time.sleep(600)


def sleep_deaf(send: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep(send)


def give_the_unpicklable(send: Any) -> Any:
    return lambda: None


def die_at_first(place: Path, deaths: int, send: Any) -> int:
    """Killed so many times, then gives how often it was started."""
    tries = len(list(place.glob("try-*")))
    (place / f"try-{tries}").touch()
    send({"try": tries})
    if tries < deaths:
        die()
    return tries + 1


@dataclass(frozen=True)
class Does(AtEnd):
    """One of the tasks above, or nothing but its lines, at a search's end."""

    task: str | None = None
    timeout: float | None = 60.0
    says: Sequence[str] = ()
    name = "report"
    command = "redline report {search}"

    def __call__(self, search: EndedSearch) -> Sequence[str]:
        if self.task is not None:
            globals()[self.task]()
        return [f"{line}: {search.name}" for line in self.says]
