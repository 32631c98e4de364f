import math
from typing import Annotated

from annotated_types import Ge

from redline.bounds import Count, Kept
from redline.stability.rules.base import OnlineRule
from redline.stability.rules.smoothing import RunningMean


class NoReturn(OnlineRule):
    """The smoothed loss rises ``rise`` nats above its own best and does not come back.

    Back means below that line again within ``patience`` steps, or by the end of the run.
    A rise that does come back is counted in ``spikes``.
    """

    def __init__(self, rise: Annotated[float, Ge(0)], patience: Count, smoothing: Kept) -> None:
        self.rise, self.patience = rise, patience
        self.mean = RunningMean(smoothing)
        self.best = math.inf
        self.above_since: int | None = None
        self.spikes = 0

    def broken_by(self, step: int, loss: float, grad_norm: float) -> bool:
        smoothed = self.mean.update(step, loss)
        self.best = min(self.best, smoothed)
        if smoothed > self.best + self.rise:
            self.above_since = step if self.above_since is None else self.above_since
        elif self.above_since is not None:
            self.spikes += 1
            self.above_since = None
        return self.above_since is not None and step - self.above_since >= self.patience

    def broken_at_end(self) -> bool:
        return self.above_since is not None
