"""From outcomes to verdicts: rule 5 over all of a seed's runs, then a vote of the seeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from redline.stability import Outcome, SearchRule

Vote = Literal["any", "majority", "all"]


@dataclass(frozen=True, order=True)
class Point:
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


def diverged_votes_needed(seeds: int, vote: Vote) -> int:
    return {"any": 1, "majority": seeds // 2 + 1, "all": seeds}[vote]


def rung_verdicts(
    verdicts: Mapping[Point, str | None], rungs: int, seeds: int, vote: Vote
) -> list[bool | None]:
    """For every rung: True diverged, False stable, None where the seeds run so far leave it open."""
    needed = diverged_votes_needed(seeds, vote)
    result: list[bool | None] = []
    for rung in range(rungs):
        votes = [reason is not None for point, reason in verdicts.items() if point.rung == rung]
        if sum(votes) >= needed:
            result.append(True)
        elif votes.count(False) > seeds - needed:
            result.append(False)
        else:
            result.append(None)
    return result
