"""What a search asks of each variant."""

from dataclasses import dataclass
from functools import cached_property

from redline.search.policy import ladder
from redline.search.policy.prior import Prior


@dataclass(frozen=True)
class Question:
    """What a search asks of each variant; `conf/hydra/sweeper/max_lr.yaml` says what each number means."""

    ladder: tuple[float, ...]  # smallest first
    seeds: int
    criterion: str
    lost_share: float
    resolution: float
    settled: float
    budget: float | None
    extend: bool
    low: float | None
    high: float | None
    prior: Prior

    @cached_property
    def values(self) -> dict[int, float]:
        """Rung -> value, with those that the ladder may grow by."""
        return ladder.extended(self.ladder, ladder.EXTENSION if self.extend else 0, self.low, self.high)
