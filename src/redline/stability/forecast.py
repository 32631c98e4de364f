"""An early warning: that a run will diverge, from its norms, before its loss shows it. Pure numbers."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from annotated_types import Ge, Le

from redline.bounds import Positive, Steps
from redline.stability.outcome import Verdict

Ramp = Annotated[float, Ge(0), Le(10**6)]


class Forecaster:
    """Warns, once a run, when a reading has grown past its limit since the first one, or is not finite.

    Two readings: ``max_logit``, the largest attention logit (Wortsman et al. 2023, section 3.1: the loss
    suffers from about 1e3 on), and ``output_gain``, the largest RMS of what attention and MLP add to the
    residual stream, over the square of its width. A matrix's entries move together under Adam, so that what
    it puts out grows as LR times width (Yang et al. 2022, arXiv 2203.03466, table 3), and between two norms
    there are two matrices. A limit that is None is off.

    Both grow with the sum of the learning rates so far, and so do the limits, until they are whole after
    ``ramp`` times the linear warm-up of ``warmup_steps``. Up to twice the first reading is no growth: one
    batch differs from another.
    """

    def __init__(
        self, *, max_logit: Positive | None, output_gain: Positive | None, warmup_steps: Steps, ramp: Ramp
    ) -> None:
        self.limits = {"max_logit": max_logit, "output_gain": output_gain}
        self.warmup_steps, self.ramp = warmup_steps, ramp
        self.first: dict[str, float] = {}
        self.forecast: Verdict | None = None

    def share(self, step: int) -> float:
        """Of the limits that holds at ``step`` (counted from 0), from 0 to 1."""
        whole = self._summed(self.ramp * self.warmup_steps)
        return min(self._summed(step) / whole, 1.0) if whole else 1.0

    def _summed(self, steps: float) -> float:
        """The learning rates of so many steps, in peak ones."""
        warmup = self.warmup_steps
        return steps**2 / (2 * warmup) if steps < warmup else steps - warmup / 2

    def read(self, step: int, readings: Mapping[str, float]) -> Verdict | None:
        """The warning that the readings of ``step`` give, if it is the run's first one."""
        if self.forecast is not None:
            return None
        for name, limit in self.limits.items():
            if limit is None or name not in readings:
                continue
            value = readings[name]
            first = self.first.setdefault(name, value)
            allowed = first + abs(first) + limit * self.share(step)
            if not (math.isfinite(value) and value <= allowed):
                self.forecast = Verdict(f"{name} {value:.3g}, allowed {allowed:.3g}", step)
                return self.forecast
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first, "forecast": self.forecast and asdict(self.forecast)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.first = dict(state["first"])
        self.forecast = state["forecast"] and Verdict(**state["forecast"])
