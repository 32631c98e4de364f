"""`python src/train.py …` as a user gives it, in a folder of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import optuna

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / "src" / "train.py"


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def name(self) -> str:
        """Of the search."""
        found = re.search(r"\] search ([^:]+): ", self.stdout)
        assert found, self.stdout + self.stderr
        return found[1]


@dataclass(frozen=True)
class Finished:
    """A search that has ended, and the folder in which it was run."""

    cwd: Path
    answer: Answer


Ask = Callable[..., Answer]


def train(*arguments: str, cwd: Path, timeout: float = 1200) -> Answer:
    done = subprocess.run(
        [sys.executable, TRAIN, *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@dataclass
class Started:
    """A command under way, in a process group of its own as a shell would start it."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    @classmethod
    def train(cls, *arguments: str, cwd: Path) -> "Started":
        process = subprocess.Popen(
            [sys.executable, TRAIN, *arguments],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        started = cls(process)
        assert process.stdout is not None
        threading.Thread(target=started._listen, args=(process.stdout,), daemon=True).start()
        return started

    def _listen(self, pipe: IO[str]) -> None:
        for line in pipe:
            self.said.append(line)

    def until(self, words: str, seconds: float = 600) -> None:
        """Wait for a line of its output."""
        deadline = time.monotonic() + seconds
        while not any(words in line for line in self.said):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                assert self.process.stderr is not None
                raise AssertionError(f"never said {words!r}: {self.said} {self.process.stderr.read()}")
            time.sleep(0.02)

    def signal_group(self, number: int) -> None:
        """What a terminal does for Ctrl-C: every process of the group hears it."""
        os.killpg(self.process.pid, number)

    def kill_coordinator(self) -> None:
        """kill -9 of the one process that the user started."""
        self.process.send_signal(signal.SIGKILL)

    def end(self, seconds: float = 600) -> Answer:
        self.process.wait(seconds)
        assert self.process.stderr is not None
        stderr = self.process.stderr.read()
        return Answer(self.process.returncode, "".join(self.said), stderr)


def result(cwd: Path, name: str) -> dict[str, Any]:
    return json.loads((cwd / "mlruns" / "searches" / name / "result.json").read_text())


def studies(cwd: Path, name: str) -> dict[str, optuna.Study]:
    """Of a search, by variant."""
    storage = f"sqlite:///{cwd / 'mlruns' / 'optuna.db'}"
    found = {}
    for study in optuna.get_all_study_names(storage):
        if study.startswith(f"{name}/"):
            found[study.removeprefix(f"{name}/")] = optuna.load_study(study_name=study, storage=storage)
    return found


def completed(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """All but spare trials that were cancelled."""
    return [trial for trial in study.trials if trial.user_attrs.get("failure") != "cancelled"]


def trials(cwd: Path, name: str, *states: str) -> list[tuple[str, float, int]]:
    """Variant, LR and seed of a search's trials that are in one of these states."""
    return [
        (variant, trial.params["lr"], trial.params["seed"])
        for variant, study in studies(cwd, name).items()
        for trial in study.trials
        if trial.state.name in states
    ]
