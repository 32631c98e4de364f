import math

from redline.stability.rules.base import OnlineRule
from redline.stability.rules.smoothing import RunningMean


class NoReturn(OnlineRule):
    """The smoothed loss rises ``rise`` nats above its own best and does not come back.

    Back means below that line again within ``patience`` steps, or by the end of the run.
    A rise that does come back is counted in ``spikes``.
    """

    def __init__(self, rise: float, patience: int, smoothing: float) -> None:
        self.rise, self.patience = rise, patience
        self.mean = RunningMean(smoothing)
        self.best = math.inf
        self.steps_above = 0
        self.spikes = 0

    def broken_by(self, step: int, loss: float, grad_norm: float) -> bool:
        smoothed = self.mean.update(loss)
        self.best = min(self.best, smoothed)
        if smoothed > self.best + self.rise:
            self.steps_above += 1
        elif self.steps_above:
            self.spikes += 1
            self.steps_above = 0
        return self.steps_above > self.patience

    def broken_at_end(self) -> bool:
        return self.steps_above > 0
