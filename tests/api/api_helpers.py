"""Scripts as a user writes them, each run in a folder of its own; and what a search has left there."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import optuna
from optuna.trial import FrozenTrial, TrialState

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
_LONGEST = 300.0  # seconds; only a test that fails takes them


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}


def python(*words: str | Path, cwd: Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run to the end; a status other than 0 is for the caller to see."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_LONGEST,
    )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _LONGEST
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@dataclass
class Started:
    """A script under way."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    @classmethod
    def python(cls, script: Path, cwd: Path) -> "Started":
        process = subprocess.Popen(
            [sys.executable, script],
            cwd=cwd,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started = cls(process)
        assert process.stdout is not None
        threading.Thread(target=started._listen, args=(process.stdout,), daemon=True).start()
        return started

    def _listen(self, pipe: IO[str]) -> None:
        for line in pipe:
            self.said.append(line)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for what this process, or a trial of its, is to do."""

        def or_dead() -> bool:
            assert self.process.poll() is None, f"ended before {what}: {''.join(self.said)}"
            return condition()

        wait_for(or_dead, f"{what}; it said {self.said}")

    def heard(self, words: str) -> bool:
        return any(words in line for line in self.said)

    def kill(self) -> None:
        """kill -9 of the one process that the user started."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(_LONGEST)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the second if it ends while it is read
        return False
    return state not in "ZX"  # a zombie is dead, though nobody has looked


def trials(cwd: Path, study: str) -> list[FrozenTrial]:
    """Of the study ``SEARCH/VARIANT``."""
    url = f"sqlite:///{cwd / 'mlruns' / 'optuna.db'}"
    return optuna.load_study(study_name=study, storage=url).trials


def finished(cwd: Path, study: str) -> list[tuple[int, dict[str, float]]]:
    """Number and parameters of the trials that have an outcome."""
    return [(its.number, its.params) for its in trials(cwd, study) if its.state == TrialState.COMPLETE]
