"""Judges a run's steps by the rules, one by one, and gives the outcome at its end."""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from redline.errors import UserError
from redline.stability.outcome import Outcome, Score, Verdict
from redline.stability.rules import EndRule, OnlineRule
from redline.stability.windows import Windows

_RECORD = struct.Struct("<qdd")
Record = tuple[int, float, float]  # step, loss, gradient norm


@dataclass(frozen=True)
class Progress:
    """Where a run is: ``step`` steps are done. ``forecast_step``: since when it is expected to diverge.

    ``windows``: the mean loss of all that are complete (see `Windows`), so that no message is missed.
    """

    step: int
    loss: float
    page: str | None = None
    forecast_step: int | None = None
    windows: tuple[float, ...] = ()


class Watch:
    """Judges a run by those of ``rules`` that are judged while training and at its end.

    A run that is resumed is judged as if it had never been stopped: the steps before are judged again, from
    a checkpoint's state or, with a ``curve``, from that file, in which all are kept.
    """

    def __init__(
        self,
        rules: Mapping[str, Any] | None = None,
        tell: Callable[[Progress], object] = lambda progress: None,
        curve: Path | None = None,
        max_steps: int | None = None,
    ) -> None:
        """``max_steps``: of the whole run; None: not known, and there are no windows."""
        rules = rules or {}
        self.online = {name: rule for name, rule in rules.items() if isinstance(rule, OnlineRule)}
        self.at_end = {name: rule for name, rule in rules.items() if isinstance(rule, EndRule)}
        self.tell = tell
        self.verdict: Verdict | None = None
        self.initial_loss = self.last_loss = math.nan
        self.steps_seen = 0
        self.windows = Windows(max_steps)
        self.forecast_step: int | None = None
        self.page: str | None = None
        self.cancelled = False  # the run's answer is no longer needed
        self._forecast: Verdict | None = None
        self._records: list[Record] = []
        self._curve = curve
        self._file: IO[bytes] | None = None

    def report(self, step: int, loss: float, grad_norm: float | None = None) -> bool:
        """Judge a step (counted from 0). True where the run is to stop. Raises UserError."""
        if self._file is None and self._curve is not None:
            self._file = self._resume(self._curve, step)
        if self._records and step < self._records[-1][0]:
            raise UserError(
                f"report({step}, …): after step {self._records[-1][0]}; allowed: steps that grow, counted "
                "from 0 over the whole run"
            )
        record = step, loss, 0.0 if grad_norm is None else grad_norm
        if self._file is not None:
            self._file.write(_RECORD.pack(*record))
        if self.verdict is None:
            self._judge(*record)
            self.tell(Progress(step + 1, loss, self.page, self.forecast_step, self.windows.means))
        return self.verdict is not None or self.cancelled

    def warn(self, step: int, reason: str | None) -> None:
        """The run is expected to diverge since ``step``. With a ``reason`` it ends as diverged by it once
        that step is judged, unless a rule broke by then.
        """
        self.forecast_step = step
        self._forecast = None if reason is None else Verdict(reason, step)

    def silence(self) -> None:
        """Judge only: keep no file and tell nobody, as in all processes of a run but the first."""
        self._curve, self.tell = None, lambda progress: None

    def outcome(self, value: float, seed: int, score: Score, max_steps: int | None) -> Outcome:
        """What follows once the run has ended with ``score``."""
        if self._curve is not None and self._file is None and self.steps_seen == 0:
            # Nothing was left to train: a run that was stopped after its last step, and resumed.
            self._judge_all(_read(self._curve))
        verdict = self.final_verdict()
        if verdict is None and score.loss is not None:
            reason = self._broken_at_end(score.loss, score.floor)
            if reason is None and not all(map(math.isfinite, (score.loss, *score.numbers.values()))):
                reason = "non_finite"  # even if that rule is off
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
            interventions=dict(score.interventions),
            page=self.page,
        )

    def final_verdict(self) -> Verdict | None:
        """The rule that the run broke while training or by how it ended, before its score is judged."""
        broken = [name for name, rule in self.online.items() if rule.broken_at_end()]
        return self.verdict or (Verdict(broken[0], self._last_step) if broken else None)

    @property
    def _last_step(self) -> int:
        return max(0, self.steps_seen - 1)  # 0 where none was reported

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        forecast = self._forecast and asdict(self._forecast)
        return {"records": list(self._records), "forecast_step": self.forecast_step, "forecast": forecast}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.forecast_step = state["forecast_step"]
        self._forecast = state["forecast"] and Verdict(**state["forecast"])
        self._judge_all(state["records"])

    def _judge(self, step: int, loss: float, grad_norm: float) -> None:
        if not self._records:
            self.initial_loss = loss
        self._records.append((step, loss, grad_norm))
        self.last_loss, self.steps_seen = loss, step + 1
        self.windows.add(step, loss)
        broken = (name for name, rule in self.online.items() if rule.broken_by(step, loss, grad_norm))
        if reason := next(broken, None):
            self.verdict = Verdict(reason, step)
        elif self._forecast is not None and self._forecast.step <= step:
            self.verdict = self._forecast

    def _broken_at_end(self, loss: float, floor: float | None) -> str | None:
        broken = (
            name for name, rule in self.at_end.items() if floor is not None and rule.broken_by(loss, floor)
        )
        return next(broken, None)

    def _judge_all(self, records: list[Record]) -> None:
        for record in records:
            if self.verdict is None:
                self._judge(*record)

    def _resume(self, curve: Path, step: int) -> IO[bytes]:
        """Judge the steps before ``step``, where a checkpoint has not; the file is cut behind them."""
        kept = [record for record in _read(curve) if record[0] < step]
        if not self._records:
            self._judge_all(kept)
        curve.parent.mkdir(parents=True, exist_ok=True)
        file = curve.open("ab", buffering=0)
        # Truncated, not rewritten: a kill during that would lose all of it.
        file.truncate(len(kept) * _RECORD.size)
        return file


def _read(curve: Path) -> list[Record]:
    """The steps in a file, without a last one that a kill left incomplete."""
    content = curve.read_bytes() if curve.exists() else b""
    return list(_RECORD.iter_unpack(content[: len(content) // _RECORD.size * _RECORD.size]))
