from redline.stability.rules.base import OnlineRule
from redline.stability.rules.smoothing import RunningMean


class BlowUp(OnlineRule):
    """After warm-up the smoothed loss stays above the loss at initialisation for ``patience`` steps."""

    def __init__(self, warmup_steps: int, patience: int, smoothing: float) -> None:
        self.warmup_steps, self.patience = warmup_steps, patience
        self.mean = RunningMean(smoothing)
        self.initial_loss: float | None = None
        self.steps_above = 0

    def broken_by(self, step: int, loss: float, grad_norm: float) -> bool:
        if self.initial_loss is None:
            self.initial_loss = loss
        above = self.mean.update(loss) > self.initial_loss and step >= self.warmup_steps
        self.steps_above = self.steps_above + 1 if above else 0
        return self.steps_above >= self.patience
