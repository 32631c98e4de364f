from typing import Annotated

from annotated_types import Ge

from redline.stability.outcome import Outcome
from redline.stability.rules.base import SearchRule


class Degraded(SearchRule):
    """The validation loss is more than ``tolerance`` nats above that of a smaller LR.

    Only smaller LRs count, so an under-trained low rung is never called diverged.
    """

    def __init__(self, tolerance: Annotated[float, Ge(0)]) -> None:
        self.tolerance = tolerance

    def broken_by(self, outcome: Outcome, smaller: list[Outcome]) -> bool:
        losses = [other.val_loss for other in smaller if other.val_loss is not None]
        return outcome.val_loss is not None and any(
            outcome.val_loss > loss + self.tolerance for loss in losses
        )
