"""A job of a cluster: runs a command, and lets it end its trials when the job must end."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from types import FrameType
from typing import Any

from redline.search.workers.interrupt import handled


def run_command(words: Sequence[str], folder: str, hidden: Collection[str], cfg: Any) -> tuple[int, str]:
    """Run Python with ``words`` in ``folder``, without the environment variables ``hidden``.

    Gives its exit status and its last line of stderr; both its outputs go where the job's go. Whatever
    ends the job early reaches the command as one SIGTERM, and is waited for: SIGTERM and Ctrl-C, which
    then raise SystemExit, or an exception that a launcher raises for a signal of its own.
    ``cfg`` is what Hydra hands to a job, and not used.
    """
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    signals = _Signals()
    # A file, not a pipe: what the command leaves behind would keep a pipe open for seconds.
    with tempfile.TemporaryFile("w+", errors="replace") as errors, handled(signals.hear):
        try:
            # Its own session, or a terminal's Ctrl-C would reach it beside our SIGTERM.
            with subprocess.Popen(
                [sys.executable, *words], cwd=folder, env=environment, stderr=errors, start_new_session=True
            ) as command:
                signals.command = command
                try:
                    if signals.heard is not None:
                        signals.pass_on()
                    status = command.wait()
                except BaseException:
                    signals.pass_on()
                    raise
        finally:
            errors.seek(0)
            said = errors.read()
            print(said, end="", file=sys.stderr, flush=True)
    if signals.heard is not None:
        sys.exit(128 + signals.heard)
    return status, (said.strip().splitlines() or [""])[-1]


class _Signals:
    """Notes the signals to end. Clusters and terminals send several; the command hears of one."""

    def __init__(self) -> None:
        self.heard: int | None = None
        self.command: subprocess.Popen[bytes] | None = None
        self._told = False

    def hear(self, number: int, frame: FrameType | None) -> None:
        self.heard = self.heard or number
        self.pass_on()

    def pass_on(self) -> None:
        if self.command is not None and not self._told:
            self._told = True
            self.command.terminate()
