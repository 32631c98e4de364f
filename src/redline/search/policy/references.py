"""Runs below the edge that might show that it lies lower.

The rule `degraded` compares a run with every smaller value, and a bisection has run few of them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist

from redline.search.policy.loss_model import expected_losses
from redline.search.policy.verdicts import Bracket, Point, bracket, finite_losses, reasons, rung_verdicts
from redline.stability import Outcome, SearchRule

_LEVELS = (0.9, 0.7, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1)  # probabilities by which runs are ordered


def references(
    outcomes: Mapping[Point, Outcome],
    rules: Mapping[str, SearchRule],
    *,
    ladder: Sequence[float],
    seeds: int,
    vote: str,
    doubt: float,
    given_up: Collection[Point] = (),
) -> list[Point]:
    """The runs that would move the bracket with at least the probability ``doubt``, the likeliest first."""

    def ends(of: Mapping[Point, Outcome]) -> Bracket:
        return bracket(rung_verdicts(reasons(of, rules), len(ladder), seeds, vote))

    now = ends(outcomes)
    losses = {point: loss for point, loss in finite_losses(outcomes).items() if point.rung <= now.diverged}
    untried = [
        Point(rung, seed)
        for seed in sorted({point.seed for point in losses})
        for rung in range(now.stable)
        if Point(rung, seed) not in outcomes and Point(rung, seed) not in given_up
    ]
    if doubt >= 1 or not untried:
        return []

    def moves(point: Point, loss: float) -> bool:
        like = next(iter(outcomes.values()))
        imagined = replace(like, value=ladder[point.rung], seed=point.seed, reason=None, val_loss=loss)
        return ends({**outcomes, point: imagined}) != now

    def likelihood(point: Point, loss: NormalDist) -> float:
        levels = (*(level for level in _LEVELS if level > doubt), doubt)
        return next((level for level in levels if moves(point, loss.inv_cdf(level))), 0.0)

    expected = expected_losses(losses, untried, ladder)
    chances = {point: likelihood(point, loss) for point, loss in zip(untried, expected, strict=True)}
    return sorted((point for point in untried if chances[point] > 0), key=lambda point: -chances[point])
