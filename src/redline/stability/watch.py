"""A run's steps held against the rules, one by one, and the outcome that follows at its end."""

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

from redline.errors import UserError
from redline.stability.outcome import Outcome, Score
from redline.stability.rules import EndRule, OnlineRule
from redline.stability.verdict import Verdict

_RECORD = struct.Struct("<qdd")  # step, loss, gradient norm


@dataclass(frozen=True)
class Progress:
    """Where a run is: ``step`` steps are done. ``forecast_step``: since when it is expected to diverge."""

    step: int
    loss: float
    page: str | None = None
    forecast_step: int | None = None


def _nobody(progress: Progress) -> None:
    pass


class Watch:
    """Judges a run by those of ``rules`` that are judged while training and at its end.

    With a ``curve``, a file, the steps are kept there: a run that is resumed at a later step is judged as if
    it had never been stopped.
    """

    def __init__(
        self,
        rules: Mapping[str, Any] | None = None,
        tell: Callable[[Progress], object] = _nobody,
        curve: Path | None = None,
    ) -> None:
        rules = rules or {}
        self.online = {name: rule for name, rule in rules.items() if isinstance(rule, OnlineRule)}
        self.at_end = {name: rule for name, rule in rules.items() if isinstance(rule, EndRule)}
        self.tell = tell
        self.verdict: Verdict | None = None
        self.initial_loss = self.last_loss = math.nan
        self.steps_seen = 0
        self.forecast_step: int | None = None
        self.page: str | None = None
        self.cancelled = False  # the run's answer is no longer needed
        self._forecast: Verdict | None = None
        self._latest = 0
        self._curve = curve
        self._file: IO[bytes] | None = None

    def report(self, step: int, loss: float, grad_norm: float | None = None) -> bool:
        """Judge a step (counted from 0). True where the run is to stop. Raises UserError."""
        if step < self._latest:
            raise UserError(
                f"report({step}, …): after step {self._latest}; allowed: steps that grow, counted from 0 "
                "over the whole run"
            )
        self._latest = step
        grad_norm = 0.0 if grad_norm is None else grad_norm
        if self._curve is not None:
            self._keep(self._curve, step, loss, grad_norm)
        if self.verdict is None:
            self._judge(step, loss, grad_norm)
            self.tell(Progress(step + 1, loss, self.page, self.forecast_step))
        return self.verdict is not None or self.cancelled

    def warn(self, step: int, reason: str | None) -> None:
        """The run is expected to diverge since ``step``. With a ``reason`` it ends as diverged by it once
        that step is judged, unless a rule broke by then.
        """
        self.forecast_step = step
        self._forecast = None if reason is None else Verdict(reason, step)

    def outcome(self, value: float, seed: int, score: Score, max_steps: int | None) -> Outcome:
        """What follows once the run has ended with ``score``."""
        if self._curve is not None and self._file is None and self.steps_seen == 0:
            # Nothing was left to train: a run that was stopped after its last step, and resumed.
            self._judge_again(_records(self._curve))
        verdict = self.final_verdict()
        if verdict is None and score.loss is not None:
            reason = self._broken_at_end(score.loss, score.floor)
            verdict = None if reason is None else Verdict(reason, self._last_step)
        reported = self.steps_seen or max_steps or 0
        return Outcome(
            value=value,
            seed=seed,
            reason=None if verdict is None else verdict.reason,
            step=self._last_step if verdict is None else verdict.step,
            optimizer_steps=reported if score.steps is None else score.steps,
            val_loss=score.loss,
            initial_loss=self.initial_loss,
            train_loss=self.last_loss,
            floor=score.floor,
            numbers=dict(score.numbers),
            spikes=sum(getattr(rule, "spikes", 0) for rule in self.online.values()),
            page=self.page,
        )

    def final_verdict(self) -> Verdict | None:
        """The rule that the run broke on its way, or by ending as it did; its score is not asked yet."""
        broken = [name for name, rule in self.online.items() if rule.broken_at_end()]
        return self.verdict or (Verdict(broken[0], self._last_step) if broken else None)

    @property
    def _last_step(self) -> int:
        return max(0, self.steps_seen - 1)  # 0 where none was reported

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "initial_loss": self.initial_loss,
            "last_loss": self.last_loss,
            "steps_seen": self.steps_seen,
            "forecast_step": self.forecast_step,
            "verdict": self.verdict and asdict(self.verdict),
            "rules": {name: rule.state_dict() for name, rule in self.online.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.initial_loss, self.last_loss = state["initial_loss"], state["last_loss"]
        self.steps_seen, self.forecast_step = state["steps_seen"], state["forecast_step"]
        self.verdict = state["verdict"] and Verdict(**state["verdict"])
        for name, rule_state in state["rules"].items():
            if name in self.online:
                self.online[name].load_state_dict(rule_state)

    def _judge(self, step: int, loss: float, grad_norm: float) -> None:
        if math.isnan(self.initial_loss) and self.steps_seen == 0:
            self.initial_loss = loss
        self.last_loss, self.steps_seen = loss, step + 1
        broken = (name for name, rule in self.online.items() if rule.broken_by(step, loss, grad_norm))
        if reason := next(broken, None):
            self.verdict = Verdict(reason, step)
        elif self._forecast is not None and self._forecast.step <= step:
            self.verdict = self._forecast

    def _broken_at_end(self, loss: float, floor: float | None) -> str | None:
        broken = (
            name for name, rule in self.at_end.items() if floor is not None and rule.broken_by(loss, floor)
        )
        # A score that is no number is no result, whichever rules are off.
        return next(broken, None) or (None if math.isfinite(loss) else "non_finite")

    def _keep(self, path: Path, step: int, loss: float, grad_norm: float) -> None:
        if self._file is None:
            kept = list(takewhile(lambda record: record[0] < step, _records(path)))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            # What follows is trained again. Cut, not written anew: a kill amid that would lose all of it.
            self._file.truncate(len(kept) * _RECORD.size)
            if self.steps_seen == 0:
                self._judge_again(kept)
        self._file.write(_RECORD.pack(step, loss, grad_norm))

    def _judge_again(self, records: Iterable[tuple[int, float, float]]) -> None:
        for record in records:
            if self.verdict is None:
                self._judge(*record)


def _records(path: Path) -> Iterator[tuple[int, float, float]]:
    """The steps in a file, without the last one where a kill left half of it."""
    content = path.read_bytes() if path.exists() else b""
    return _RECORD.iter_unpack(content[: len(content) // _RECORD.size * _RECORD.size])
