"""The divergence rules, and the two moments at which one can be judged; `conf/divergence/` names those that
hold.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated

from annotated_types import Ge, Gt, Le

from redline.bounds import Count, Kept, Steps

Nats = Annotated[float, Ge(0), Le(10**6)]
Patience = Annotated[float, Gt(0), Le(1)]  # a share of a run's steps
_LEAST_PATIENCE = 50  # steps, where a run's length is not known: a share of its first ones is nothing


class OnlineRule(ABC):
    """Judged after every step. A run that is resumed shows it the steps before again."""

    @abstractmethod
    def broken_by(self, step: int, loss: float, grad_norm: float) -> bool:
        """True where this step (counted from 0) shows divergence. Loss in nats, pre-clip gradient norm."""

    def broken_at_end(self) -> bool:
        """True where a run that ends now has diverged."""
        return False


class EndRule(ABC):
    """Judged once, on the validation loss of a run that reached its last step."""

    @abstractmethod
    def broken_by(self, val_loss: float, unigram_entropy: float) -> bool:
        """Both in nats per token."""


class RunningMean:
    """An exponential mean without the bias of its start (Kingma & Ba 2015, section 3).

    Each step keeps the share ``smoothing`` of it; a value stands for the steps since the one before it.
    """

    def __init__(self, smoothing: float) -> None:
        assert 0 <= smoothing < 1
        self.smoothing = smoothing
        self.total = 0.0
        self.weight = 0.0
        self.step: int | None = None

    def update(self, step: int, value: float) -> float:
        kept = self.smoothing if self.step is None else self.smoothing ** max(1, step - self.step)
        self.step = step
        self.total = kept * self.total + (1 - kept) * value
        self.weight = kept * self.weight + (1 - kept)
        return self.total / self.weight


def _in_steps(patience: float, max_steps: int | None, step: int) -> float:
    """Of a run's length, or of the steps up to this one (counted from 0) where that is not known."""
    if max_steps is None:
        return max(_LEAST_PATIENCE, patience * (step + 1))
    return max(1, round(patience * max_steps))


class NonFinite(OnlineRule):
    """Loss or gradient norm is NaN or infinite, once."""

    def broken_by(self, step: int, loss: float, grad_norm: float) -> bool:
        return not (math.isfinite(loss) and math.isfinite(grad_norm))


class BlowUp(OnlineRule):
    """After warm-up the smoothed loss stays above the loss at initialisation for a share ``patience`` of the
    run's ``max_steps``.
    """

    def __init__(
        self, warmup_steps: Steps, patience: Patience, smoothing: Kept, max_steps: Count | None
    ) -> None:
        self.warmup_steps, self.patience, self.max_steps = warmup_steps, patience, max_steps
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
        if self.above_since is None:
            return False
        # Steps, not reports: a run may report every tenth.
        return step - self.above_since + 1 >= _in_steps(self.patience, self.max_steps, step)


class NoReturn(OnlineRule):
    """The smoothed loss rises ``rise`` nats above its own best and does not come back.

    Back means below that line again within a share ``patience`` of the run's ``max_steps``, or by its end.
    A rise that does come back is counted in ``spikes``.
    """

    def __init__(self, rise: Nats, patience: Patience, smoothing: Kept, max_steps: Count | None) -> None:
        self.rise, self.patience, self.max_steps = rise, patience, max_steps
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
        if self.above_since is None:
            return False
        return step - self.above_since >= _in_steps(self.patience, self.max_steps, step)

    def broken_at_end(self) -> bool:
        return self.above_since is not None


class NoLearning(EndRule):
    """The validation loss is not below the unigram entropy: the model ignores its context."""

    def broken_by(self, val_loss: float, unigram_entropy: float) -> bool:
        return math.isnan(val_loss) or val_loss >= unigram_entropy
