"""The sender of one command: a process of its own, which a training step does not wait for.

It ends with the process that started it, however that ends.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NICENESS = 10  # training comes first; what is late is sent after it


class SenderProcess:
    """A running sender; ``settings`` are a `Sender`'s."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        folder = Path(settings["outbox"])
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "sender.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "redline.training.outbox.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C is for us: the run's end is still to be sent
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        # Not as an argument, which everybody on the machine could read: there may be a password in it.
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dict(settings)).encode() + b"\n")
        self._process.stdin.flush()
        self._ready = False
        atexit.register(self.stop)

    @property
    def is_ready(self) -> bool:
        """Whether it has begun to send; importing MLflow takes seconds, and making a store of SQLite."""
        assert self._process.stdout is not None
        if not self._ready and select.select([self._process.stdout], [], [], 0)[0]:
            self._ready = True
        return self._ready

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


_started: dict[tuple[int, str], SenderProcess] = {}


def sender_process(settings: Mapping[str, Any]) -> SenderProcess:
    """This process' sender with these settings, started where there is none."""
    key = os.getpid(), json.dumps(dict(settings), sort_keys=True)
    if key not in _started or not _started[key].is_alive:
        _started[key] = SenderProcess(settings)
    return _started[key]


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    os.nice(_NICENESS)
    settings = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    from redline.training.outbox.sender import Sender

    sender = Sender(**settings)
    sender.try_to_open()
    print("ready", flush=True)
    sender.run_for_ever()


if __name__ == "__main__":
    main()
