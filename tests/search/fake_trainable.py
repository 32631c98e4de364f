"""A trainable whose trials answer at once, for coordinators and engines; importable by the children."""

import math
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from redline.errors import UserError
from redline.search import Facts, Score, Trainable, Trial
from redline.search.workers import tasks

# Those that a fake's trials are judged by.
RULES = {"non_finite": {"_target_": "redline.stability.NonFinite"}}


@dataclass(frozen=True)
class Fake(Trainable):
    """Trials diverge from ``edge`` on, by a loss that is no number. Mappings are by the value's text."""

    edge: float
    useful: float | None = (
        None  # where a quarter of what can be learned is lost: scores rise from 4 to 5 there
    )
    losses: Mapping[str, float] = field(default_factory=dict)  # scores, in place of 4.0
    spread: float = 0.0  # that each further seed adds to the score
    crashes: Mapping[str, int] = field(default_factory=dict)  # how often a trial crashes first
    refuse: float | None = None  # a value the user should not have asked for
    seconds: float | Mapping[str, float] = 0.0  # that a trial takes
    until: str | None = None  # a file: a trial takes until it is there
    reports: int | None = None  # made between finding a file ``now`` and leaving ``reported``
    every_step: bool = False  # reports an eighth less at each, each a message
    known_length: bool = True  # before a run has ended
    deaf: bool = False  # does not end when it is asked to
    learns: bool = False  # reports a loss at each step, which comes to its score along a curve
    step_seconds: float = 0.0  # that each such step takes
    gate: str | None = None  # a folder of tickets: without one a trial does not end
    steps: int = 10
    precision: str = "fp32"
    wrong: str | None = None  # what check says
    place: str | None = None  # where check and facts note that they were called
    dies_in: Mapping[str, int] = field(default_factory=dict)  # check, facts -> how often they are killed

    @property
    def max_steps(self) -> int:
        return self.steps

    def check(self) -> None:
        self._called("check")
        if self.wrong is not None:
            raise UserError(self.wrong)

    def facts(self) -> Facts:
        self._called("facts")
        steps = self.steps if self.known_length else None
        return Facts(steps, parameters=7, tokens_per_step=3, precision=self.precision)

    def settings(self) -> Mapping[str, Any]:
        return {"edge": self.edge, "steps": self.steps}

    def shortened(self, max_steps: int) -> "Fake":
        return replace(self, steps=max_steps)

    def run(self, trial: Trial) -> Score:
        value = f"{trial.value:g}"
        if self.deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tries = len(list(trial.directory.glob("try-*")))
        (trial.directory / f"try-{tries}-{os.getpid()}").touch()
        (trial.directory / f"precision-{trial.facts.precision}").touch()
        trial.link(f"http://curves/{value}-{trial.seed}-{tries}")
        begun = self._begun(trial)
        if begun == 0:
            trial.report(0, 5.0)
        if self.reports is not None:
            self._report_much(trial, self.reports)
        if self.every_step:
            tasks._EVERY = 0.0
            for step in range(1, self.steps - 1):
                trial.report(step, 5 - step / 8)
        if self.learns and not self._learn(trial, begun):
            return Score(None)
        seconds = self.seconds if isinstance(self.seconds, int | float) else self.seconds.get(value, 0)
        end = time.monotonic() + seconds
        while time.monotonic() < end or (self.until is not None and not Path(self.until).exists()):
            if trial.cancelled:
                return Score(None)
            time.sleep(0.02)
        if self.gate is not None and not _took_a_ticket(Path(self.gate), trial):
            return Score(None)
        if tries < self.crashes.get(value, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.refuse == trial.value:
            raise UserError(f"lr={value}: allowed: others")
        if trial.value >= self.edge:
            assert trial.report(self.steps - 1, math.nan)
            return Score(None)
        trial.report(self.steps - 1, 4.0)
        loss = self.losses.get(value, self._score(trial.value)) + trial.seed * self.spread
        return Score(loss, numbers={"perplexity": math.exp(loss)})

    def _score(self, value: float) -> float:
        if self.useful is None:
            return 4.0
        return 4 + 1 / (1 + 3 * (value / self.useful) ** -4)

    def _begun(self, trial: Trial) -> int:
        """The step to go on from."""
        place = trial.directory / "checkpoint"
        return int(place.read_text()) if place.exists() else 0

    def _learn(self, trial: Trial, begun: int) -> bool:
        """False where it is to end before its time; it then leaves a checkpoint."""
        tasks._EVERY = 0.0
        score = self._score(trial.value)
        for step in range(max(1, begun), self.steps - 1):
            time.sleep(self.step_seconds)
            if trial.report(step, score + (5 - score) * math.exp(-8 * step / self.steps)):
                (trial.directory / "checkpoint").write_text(str(step + 1))
                return False
        return True

    def _report_much(self, trial: Trial, reports: int) -> None:
        tasks._EVERY = 0.0  # each is a message
        while not (trial.directory / "now").exists():
            time.sleep(0.01)
        for _ in range(reports):
            trial.report(1, 5.0)
        (trial.directory / "reported").touch()

    def _called(self, what: str) -> None:
        if self.place is None:
            return
        calls = len(list(Path(self.place).glob(f"{what}-*")))
        (Path(self.place) / f"{what}-{calls}").touch()
        if calls < self.dies_in.get(what, 0):
            os.kill(os.getpid(), signal.SIGKILL)


def _took_a_ticket(gate: Path, trial: Trial) -> bool:
    """Wait for one; False where the trial is to end without."""
    while not trial.cancelled:
        if (gate / "open").exists():
            return True
        for ticket in gate.glob("ticket-*"):
            with suppress(FileNotFoundError):  # another trial was faster
                ticket.unlink()
                return True
        time.sleep(0.02)
    return False
