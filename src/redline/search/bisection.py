"""Which run to ask for next: a pure function of the ladder, the outcomes and what is running.

Every worker on every machine computes the same answer from the same storage, so nobody has to wait
for anybody.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from redline.search.verdicts import Point, Vote, diverged_votes_needed, rung_verdicts


@dataclass(frozen=True)
class Bracket:
    """The edge lies above rung ``stable`` and at most at rung ``diverged``.

    ``stable`` is -1 where no rung below ``diverged`` is known stable, ``diverged`` is the ladder's
    length where none is known diverged.
    """

    stable: int
    diverged: int


def bracket(rungs: Sequence[bool | None]) -> Bracket:
    """The bracket below the first diverged rung; a stable rung above that one changes nothing."""
    diverged = next((rung for rung, verdict in enumerate(rungs) if verdict), len(rungs))
    stable = max((rung for rung in range(diverged) if rungs[rung] is False), default=-1)
    return Bracket(stable, diverged)


def runs_left(rungs: Sequence[bool | None], seeds: int, vote: Vote) -> int:
    """About how many further runs the bracket needs to close, if seeds agree."""
    ends = bracket(rungs)
    needed = diverged_votes_needed(seeds, vote)
    to_halve = max(0, ends.diverged - max(ends.stable, 0) - 1).bit_length()
    to_begin = 1 if rungs[0] is None else 0
    return (to_halve + to_begin) * min(needed, seeds - needed + 1)


@dataclass(frozen=True)
class Plan:
    """``needed``: runs that the answer hangs on now; ``spare``: one worth running beside them."""

    needed: tuple[Point, ...]
    spare: Point | None

    @property
    def done(self) -> bool:
        return not self.needed and self.spare is None


def plan(
    verdicts: Mapping[Point, str | None],
    running: Collection[Point],
    *,
    rungs: int,
    seeds: int,
    vote: Vote,
    given_up: Collection[Point] = (),
) -> Plan:
    """What a free worker should run, given every verdict so far.

    The lowest rung comes first: rule 5 compares with it. Then the middle of the bracket, until its
    two ends are neighbours. ``given_up`` points have failed too often and are never asked for; a rung
    that has no other run left to decide it is passed over. ``needed`` includes points that are running;
    none of them running means that nobody works on this variant.
    """
    known = rung_verdicts(verdicts, rungs, seeds, vote)
    ends = bracket(known)
    hopeless = {
        rung
        for rung in range(rungs)
        if known[rung] is None and not _missing(rung, verdicts, seeds, vote, given_up)
    }
    if known[0] is None and 0 not in hopeless:
        return _with_spare(0, ends, verdicts, running, seeds, vote, given_up, hopeless)
    middle = _middle(ends.stable, ends.diverged, hopeless)
    if middle is None:
        return Plan((), None)
    return _with_spare(middle, ends, verdicts, running, seeds, vote, given_up, hopeless)


def _with_spare(
    rung: int,
    ends: Bracket,
    verdicts: Mapping[Point, str | None],
    running: Collection[Point],
    seeds: int,
    vote: Vote,
    given_up: Collection[Point],
    hopeless: Collection[int],
) -> Plan:
    missing = _missing(rung, verdicts, seeds, vote, given_up)
    # Rule 5 judges a seed by its own smaller LRs, so a seed runs its lowest rung first.
    needed = sorted({_lowest_first(point, verdicts, given_up) for point in missing})
    spare = None
    if set(needed) <= set(running):
        splits = {point.rung for point in running if ends.stable < point.rung < ends.diverged} | {rung}
        cuts = sorted(splits | {ends.stable, ends.diverged})
        gaps = sorted(pairwise(cuts), key=lambda gap: gap[0] - gap[1])
        for low, high in gaps:
            between = _middle(low, high, hopeless)
            if between is not None:
                wanted = _missing(between, verdicts, seeds, vote, given_up)
                spare = next((_lowest_first(point, verdicts, given_up) for point in wanted), None)
                spare = None if spare in running else spare
                break
    return Plan(tuple(needed), spare)


def _middle(low: int, high: int, hopeless: Collection[int]) -> int | None:
    """The rung nearest to half way between two rungs, exclusive; None where there is none."""
    between = [rung for rung in range(low + 1, high) if rung not in hopeless]
    return min(between, key=lambda rung: (abs(2 * rung - low - high), rung), default=None)


def _missing(
    rung: int, verdicts: Mapping[Point, str | None], seeds: int, vote: Vote, given_up: Collection[Point]
) -> list[Point]:
    """The fewest further seeds that could decide this rung."""
    votes = [reason is not None for point, reason in verdicts.items() if point.rung == rung]
    needed = diverged_votes_needed(seeds, vote)
    until_diverged = needed - sum(votes)
    until_stable = seeds - needed + 1 - votes.count(False)
    unused = [Point(rung, seed) for seed in range(seeds)]
    unused = [point for point in unused if point not in verdicts and point not in given_up]
    return unused[: max(1, min(until_diverged, until_stable))]


def _lowest_first(point: Point, verdicts: Mapping[Point, str | None], given_up: Collection[Point]) -> Point:
    lowest = Point(0, point.seed)
    return point if lowest in verdicts or lowest in given_up else lowest
