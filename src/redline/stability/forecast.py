"""An early warning: that a run will diverge, from its norms, before its loss shows it. Pure numbers."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Forecast:
    """A run is expected to diverge: since which step (counted from 0), and the reading that says so."""

    step: int
    reason: str


class Forecaster:
    """Warns, once a run, when a reading passes its limit or is not finite.

    Two readings: ``max_logit``, the largest attention logit (Wortsman et al. 2023, section 3.1: the loss is
    hurt from about 1e3 on), and ``output_gain``, the largest RMS of what attention and MLP add to the
    residual stream, over the square of its width. A matrix's entries move together under Adam, so that what
    it puts out grows as LR times width (Yang et al. 2022, arXiv 2203.03466, table 3), and between two norms
    there are two matrices. A limit that is None is off.
    """

    def __init__(self, max_logit: float | None, output_gain: float | None) -> None:
        self.limits = {"max_logit": max_logit, "output_gain": output_gain}
        for name, limit in self.limits.items():
            if limit is not None and not limit > 0:
                raise ValueError(f"{name}={limit}: allowed: a number above 0, or null")
        self.forecast: Forecast | None = None

    def read(self, step: int, readings: Mapping[str, float]) -> Forecast | None:
        """The warning that the readings of ``step`` give, if it is the run's first one."""
        if self.forecast is not None:
            return None
        for name, limit in self.limits.items():
            value = readings.get(name, 0.0)
            if limit is not None and not (math.isfinite(value) and value <= limit):
                self.forecast = Forecast(step, f"{name} {value:.3g}, limit {limit:g}")
                return self.forecast
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"forecast": self.forecast and asdict(self.forecast)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.forecast = state["forecast"] and Forecast(**state["forecast"])
