"""From outcomes to verdicts: the rule `degraded` over a seed's runs, then a vote of the seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from redline.stability import Outcome, SearchRule

VOTES = ("any", "majority", "all")
Verdicts = Mapping["Point", str | None]  # the rule that broke, or None for a stable run


class Point(NamedTuple):
    """One run that a search may ask for: a rung of the ladder (from 0) and a seed."""

    rung: int
    seed: int


def reasons(outcomes: Mapping[Point, Outcome], rules: Mapping[str, SearchRule]) -> dict[Point, str | None]:
    """For every outcome the rule it broke, or None where it is stable.

    The search's rules can only turn stable into diverged, whatever order outcomes arrive in.
    """
    verdicts: dict[Point, str | None] = {}
    for point, outcome in outcomes.items():
        if outcome.diverged:
            verdicts[point] = outcome.reason
            continue
        smaller = [its for other, its in outcomes.items() if other.seed == point.seed and other < point]
        broken = [name for name, rule in rules.items() if rule.broken_by(outcome, smaller)]
        verdicts[point] = broken[0] if broken else None
    return verdicts


def diverged_votes_needed(seeds: int, vote: str) -> int:
    return {"any": 1, "majority": seeds // 2 + 1, "all": seeds}[vote]


def tally(votes: Sequence[bool | None], vote: str) -> bool | None:
    """True diverged, False stable, None where missing votes (None) leave it open."""
    needed = diverged_votes_needed(len(votes), vote)
    if votes.count(True) >= needed:
        return True
    return False if votes.count(False) > len(votes) - needed else None


@dataclass(frozen=True)
class Bracket:
    """The edge lies above rung ``stable`` and at most at rung ``diverged``.

    ``stable`` is -1 where no rung below ``diverged`` is known stable, ``diverged`` is the ladder's
    length where none is known diverged.
    """

    stable: int
    diverged: int

    @property
    def width(self) -> int:
        return self.diverged - self.stable

    def meets(self, other: "Bracket") -> bool:
        """True where one edge can lie in both."""
        return self.stable < other.diverged and other.stable < self.diverged


def bracket(rungs: Sequence[bool | None]) -> Bracket:
    """The bracket below the first diverged rung; a stable rung above that one changes nothing."""
    diverged = next((rung for rung, verdict in enumerate(rungs) if verdict), len(rungs))
    stable = max((rung for rung in range(diverged) if rungs[rung] is False), default=-1)
    return Bracket(stable, diverged)


def own_vote(verdicts: Verdicts, point: Point) -> bool | None:
    """Diverged (True), stable, or None where it has not been run."""
    return verdicts[point] is not None if point in verdicts else None


def rung_votes(verdicts: Verdicts, rungs: int, seed: int) -> list[bool | None]:
    """A seed's vote on every rung: diverged (True), stable, or None.

    A rung that the seed has not run follows from its own bracket: below a stable rung it is stable, above
    its first diverged one it is diverged. A run that says otherwise counts.
    """
    run = [own_vote(verdicts, Point(rung, seed)) for rung in range(rungs)]
    own = bracket(run)
    return [
        (False if rung < own.stable else True if rung > own.diverged else None) if vote is None else vote
        for rung, vote in enumerate(run)
    ]


def rung_verdicts(verdicts: Verdicts, rungs: int, seeds: int, vote: str) -> list[bool | None]:
    """For every rung the tally of its votes."""
    votes = [rung_votes(verdicts, rungs, seed) for seed in range(seeds)]
    return [tally(of_rung, vote) for of_rung in zip(*votes, strict=True)]


def finite_losses(outcomes: Mapping[Point, Outcome]) -> dict[Point, float]:
    """In nats; runs without a finite one left out."""
    return {
        point: its.val_loss
        for point, its in outcomes.items()
        if its.val_loss is not None and math.isfinite(its.val_loss)
    }


def mean_losses(outcomes: Mapping[Point, Outcome]) -> dict[int, float]:
    """Rung -> the mean over its seeds, in nats; the best rung first."""
    losses: dict[int, list[float]] = {}
    for point, loss in sorted(finite_losses(outcomes).items()):
        losses.setdefault(point.rung, []).append(loss)
    means = {rung: fmean(values) for rung, values in losses.items()}
    return dict(sorted(means.items(), key=lambda item: item[1]))
