from redline.bounds import Count, Kept, Steps
from redline.stability.rules.base import OnlineRule
from redline.stability.rules.smoothing import RunningMean


class BlowUp(OnlineRule):
    """After warm-up the smoothed loss stays above the loss at initialisation for ``patience`` steps."""

    def __init__(self, warmup_steps: Steps, patience: Count, smoothing: Kept) -> None:
        self.warmup_steps, self.patience = warmup_steps, patience
        self.mean = RunningMean(smoothing)
        self.initial_loss: float | None = None
        self.above_since: int | None = None

    def broken_by(self, step: int, loss: float, grad_norm: float) -> bool:
        if self.initial_loss is None:
            self.initial_loss = loss
        if not (self.mean.update(step, loss) > self.initial_loss and step >= self.warmup_steps):
            self.above_since = None
        elif self.above_since is None:
            self.above_since = step
        # Steps, not reports: a run may report every tenth.
        return self.above_since is not None and step - self.above_since + 1 >= self.patience
