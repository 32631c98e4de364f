"""That a run diverged."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """The rule that a run broke, and the step (counted from 0) at which it did."""

    reason: str
    step: int
