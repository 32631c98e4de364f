"""The divergence rules, and the three moments at which one can be judged; `conf/divergence/` names those that
hold.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated

from annotated_types import Ge, Le

from redline.bounds import Count, Kept, Steps
from redline.stability.outcome import Outcome

Nats = Annotated[float, Ge(0), Le(10**6)]


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


class SearchRule(ABC):
    """Judged by the search over runs of the same variant and seed, again whenever one arrives."""

    @abstractmethod
    def broken_by(self, outcome: Outcome, smaller: list[Outcome]) -> bool:
        """``smaller``: the outcomes at smaller LRs."""


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


class NonFinite(OnlineRule):
    """Loss or gradient norm is NaN or infinite, once."""

    def broken_by(self, step: int, loss: float, grad_norm: float) -> bool:
        return not (math.isfinite(loss) and math.isfinite(grad_norm))


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


class NoReturn(OnlineRule):
    """The smoothed loss rises ``rise`` nats above its own best and does not come back.

    Back means below that line again within ``patience`` steps, or by the end of the run.
    A rise that does come back is counted in ``spikes``.
    """

    def __init__(self, rise: Nats, patience: Count, smoothing: Kept) -> None:
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


class NoLearning(EndRule):
    """The validation loss is not below the unigram entropy: the model ignores its context."""

    def broken_by(self, val_loss: float, unigram_entropy: float) -> bool:
        return math.isnan(val_loss) or val_loss >= unigram_entropy


class Degraded(SearchRule):
    """The validation loss is more than ``tolerance`` nats above that of a smaller LR.

    Only smaller LRs count, so an under-trained low rung is never called diverged.
    """

    def __init__(self, tolerance: Nats) -> None:
        self.tolerance = tolerance

    def broken_by(self, outcome: Outcome, smaller: list[Outcome]) -> bool:
        losses = [other.val_loss for other in smaller if other.val_loss is not None]
        return outcome.val_loss is not None and any(
            outcome.val_loss > loss + self.tolerance for loss in losses
        )
