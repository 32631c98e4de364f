"""The three moments at which a rule can be judged."""

from abc import ABC, abstractmethod

from redline.stability.outcome import Outcome


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
