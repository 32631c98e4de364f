"""Speculative runs: those that will probably be needed next, for workers that are free."""

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from redline.search.policy.verdicts import Point, Verdicts

_MOST_WAYS = 200  # a plan must not take longer than a few hundredths of a second

Policy = Callable[[Verdicts], Point | None]


@dataclass(frozen=True)
class Plan:
    """``needed``: the next required run, which may be running; None when the search is finished.
    ``speculative``: runs that free workers may do meanwhile, the likeliest to be needed first.
    """

    needed: Point | None
    speculative: tuple[Point, ...]


def plan(policy: Policy, verdicts: Verdicts, running: Collection[Point], speculative: int) -> Plan:
    """What ``policy`` asks for, and at most ``speculative`` points that it may ask for later."""
    needed = policy(verdicts)
    ahead = (point for point in _ahead(policy, verdicts) if point != needed and point not in running)
    return Plan(needed, tuple(itertools.islice(ahead, speculative)))


def _ahead(policy: Policy, verdicts: Verdicts) -> Iterator[Point]:
    """The points that ``policy`` would ask for, one after the other, in every way the runs might end.

    Breadth first: each run is as likely to diverge as not.
    """
    seen: set[Point] = set()
    ways = deque([verdicts])
    for _ in range(_MOST_WAYS):
        if not ways:
            return
        imagined = ways.popleft()
        point = policy(imagined)
        if point is None:
            continue
        if point not in seen:
            seen.add(point)
            yield point
        ways += [{**imagined, point: None}, {**imagined, point: "imagined"}]


def runs_to_go(policy: Policy, verdicts: Verdicts, edge: int) -> int:
    """How many further runs ``policy`` asks for if every run from rung ``edge`` on diverges."""
    imagined, runs = dict(verdicts), 0
    while (point := policy(imagined)) is not None:
        imagined[point] = "imagined" if point.rung >= edge else None
        runs += 1
    return runs
