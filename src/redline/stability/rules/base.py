"""The three moments at which a rule can be judged."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from redline.stability.outcome import Outcome
from redline.stability.rules.smoothing import RunningMean


class OnlineRule(ABC):
    """Judged after every step; its state, for checkpoints, is plain numbers."""

    @abstractmethod
    def broken_by(self, step: int, loss: float, grad_norm: float) -> bool:
        """True where this step (counted from 0) shows divergence. Loss in nats, pre-clip gradient norm."""

    def broken_at_end(self) -> bool:
        """True where the run must not end like this."""
        return False

    def state_dict(self) -> dict[str, Any]:
        return {
            key: dict(vars(value)) if isinstance(value, RunningMean) else value
            for key, value in vars(self).items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for key, value in state.items():
            if isinstance(value, Mapping):
                vars(vars(self)[key]).update(value)
            else:
                setattr(self, key, value)


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
