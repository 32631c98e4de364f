"""The sender as a process of its own: no training step waits for it, and it outlives the command."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict

from filelock import Timeout

from redline.training.outbox.folder import Outbox

_NICENESS = 10  # training comes first; what is late is sent after it
_started: list[subprocess.Popen[bytes]] = []  # Python warns of one that is forgotten while it runs


def start_sender(outbox: Outbox) -> subprocess.Popen[bytes] | None:
    """Start the outbox's sender where none is alive; None where there is one, or no process can be had."""
    with suppress(OSError):
        if outbox.has_sender:
            return None
        with (outbox.folder / "sender.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "redline.training.outbox.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C is for the run: its end is still to be sent
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        _started[:] = [its for its in _started if its.poll() is None] + [process]
        assert process.stdin is not None
        # Not as an argument, which everybody on the machine could read: there may be a password in it.
        with process.stdin as stdin:
            stdin.write(json.dumps(asdict(outbox)).encode())
        return process
    return None


def main() -> None:
    outbox = Outbox(**json.load(sys.stdin))
    os.nice(_NICENESS)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    while True:
        try:
            with outbox.sender_lock.acquire(timeout=1.0):  # who looks at it has it for microseconds
                from redline.training.outbox.sender import Sender  # MLflow takes seconds to import

                Sender(outbox).run()
        except Timeout:
            return
        # A run that began while the lock was still held has started no other sender.
        if not any(run.is_open for run in outbox.runs()):
            return


if __name__ == "__main__":
    main()
