"""A job on some machine of a cluster: a command run there, that ends in peace when the job must end."""

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from types import FrameType
from typing import Any


def run_command(words: Sequence[str], folder: str, hidden: Collection[str], cfg: Any) -> tuple[int, str]:
    """Run Python with ``words`` in ``folder``, without the environment variables ``hidden``.

    Gives its exit status and its last line of stderr; both its outputs go where the job's go. Whatever
    ends the job early (SIGTERM, or an exception that a launcher's own signal raises) reaches the command
    as one SIGTERM. ``cfg`` is what Hydra hands to a job, and not used.
    """
    # A session of its own keeps a terminal's Ctrl-C away from it, so that it hears of the end only once.
    before = signal.signal(signal.SIGTERM, _leave)
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    last = ""
    try:
        with subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as command:
            try:
                assert command.stderr is not None
                for line in command.stderr:
                    print(line, end="", file=sys.stderr, flush=True)
                    last = line.strip() or last
                return command.wait(), last
            except BaseException:
                # A second signal, as a requeue sends one, must not cut short what the first one began.
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
                command.terminate()
                raise
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
