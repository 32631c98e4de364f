"""Runs below the edge that might show it to lie lower.

Rule 5 compares a run with every smaller LR, and a bisection has run few of them.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from redline.search.verdicts import Point, Vote, bracket, reasons, rung_verdicts
from redline.stability import Outcome, SearchRule

_SURE = 2  # rungs: so far from every run of its seed, nothing is known of a loss


def references(
    outcomes: Mapping[Point, Outcome],
    rules: Mapping[str, SearchRule],
    *,
    ladder: Sequence[float],
    seeds: int,
    vote: Vote,
    doubt: float,
    given_up: Collection[Point] = (),
) -> list[Point]:
    """The points whose run would move the bracket if its validation loss were ``doubt`` nats better than
    expected, the best expected loss first. With ``doubt`` 0 none.
    """
    if doubt <= 0:
        return []

    def ends(of: Mapping[Point, Outcome]) -> object:
        return bracket(rung_verdicts(reasons(of, rules), len(ladder), seeds, vote))

    now = bracket(rung_verdicts(reasons(outcomes, rules), len(ladder), seeds, vote))
    found = []
    for seed in {point.seed for point in outcomes}:
        for rung in range(now.stable):
            point = Point(rung, seed)
            if point in outcomes or point in given_up:
                continue
            loss = _best_expected(point, outcomes, doubt)
            template = next(iter(outcomes.values()))
            imagined = replace(
                template, lr=ladder[rung], seed=seed, diverged=False, reason=None, val_loss=loss
            )
            if loss is not None and ends({**outcomes, point: imagined}) != now:
                found.append((loss, point))
    return [point for _, point in sorted(found)]


def _best_expected(point: Point, outcomes: Mapping[Point, Outcome], doubt: float) -> float | None:
    """The best loss, in nats, that a point may have: what other seeds had there, carried over by the runs
    that they share with its seed; else what its neighbours had.
    """
    losses = {
        p: o.val_loss for p, o in outcomes.items() if o.val_loss is not None and math.isfinite(o.val_loss)
    }
    own = {p.rung: loss for p, loss in losses.items() if p.seed == point.seed}
    if not own:
        return None
    carried = []
    for other in {p.seed for p in losses if p.rung == point.rung}:
        shared = [own[p.rung] - loss for p, loss in losses.items() if p.seed == other and p.rung in own]
        if shared:
            carried.append(losses[Point(point.rung, other)] + fmean(shared))
    if carried:
        return fmean(carried) - doubt / _SURE
    below = [rung for rung in own if rung < point.rung]
    above = [rung for rung in own if rung > point.rung]
    sides = ([max(below)] if below else []) + ([min(above)] if above else [])
    distance = min(abs(rung - point.rung) for rung in sides)
    return min(own[rung] for rung in sides) - doubt * min(1, distance / _SURE)
