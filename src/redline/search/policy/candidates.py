"""The runs that a search may ask for next, and what each is expected to cost."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from redline.search.policy.edges import interval
from redline.search.policy.points import Point, mean_losses, share_of
from redline.search.policy.posterior import Posterior
from redline.search.policy.question import Question
from redline.stability import Outcome

_MOST_RUNGS = 14  # that are looked at for the next run
_DIVERGED_COST = 0.4  # of a full run, until one has diverged
_FAR = 2.0  # times as large: how far below the best run so far a smaller value is tried
_FLAT = 0.1  # of the lost share that an edge is defined by: what less is lost moves it by little


def open_rungs(
    question: Question, outcomes: Mapping[Point, Outcome], floor: float | None, best: float | None
) -> list[int]:
    """The ladder's rungs, and those that it grows by.

    It grows down while none has learned anything or the best loss may lie below, and up while its highest one
    is neither lost nor diverged.
    """
    values = question.values
    tried = {point.rung for point in outcomes}
    low, high = min({0, *tried}), max({len(question.ladder) - 1, *tried})
    wanted = values[low]
    if low in tried and best is None:
        wanted /= _FAR
    elif best is not None:
        wanted = _should_be_tried(question, outcomes, floor)
    while low - 1 in values and values[low] > wanted:
        low -= 1
    while high + 1 in values and high in tried and _good(high, question, outcomes, floor, best):
        high += 1
    return [rung for rung in values if low <= rung <= high]


def _should_be_tried(question: Question, outcomes: Mapping[Point, Outcome], floor: float | None) -> float:
    """A value that is as small as the smallest run must be: far below that of the best loss.

    The lost share counts from the best loss. A run close below the best so far may be worse by chance. Where
    the loss has stopped falling, no smaller value is needed.
    """
    means, values = mean_losses(outcomes), question.values
    best, lowest = next(iter(means)), min(means)
    far = min((rung for rung in means if values[rung] >= _FAR * values[lowest]), default=None)
    if far is not None and share_of(means[far], floor, means[best]) < _FLAT * question.lost_share:
        return values[lowest]
    return values[best] / _FAR


def _good(
    rung: int, question: Question, outcomes: Mapping[Point, Outcome], floor: float | None, best: float | None
) -> bool:
    """Whether the edge that is searched may lie above a rung, by its own runs."""
    mine = [its for point, its in outcomes.items() if point.rung == rung]
    if 2 * sum(its.diverged for its in mine) > len(mine):
        return False
    if question.criterion != "useful" or best is None:
        return True
    shares = [share_of(its.val_loss, floor, best) for its in mine if its.val_loss is not None]
    return not shares or sum(shares) / len(shares) < question.lost_share


def seeds_of(
    question: Question, outcomes: Mapping[Point, Outcome], running: Mapping[Point, Any], wanted: int
) -> list[int]:
    """Those that have ended runs, and as many new ones as may be wanted: one new seed is like another."""
    begun = {point.seed for point in outcomes}
    new = (seed for seed in range(question.seeds) if seed not in begun)
    return sorted({*begun, *itertools.islice(new, wanted), *(point.seed for point in running)})


def thinned(asked: list[Point]) -> list[Point]:
    """Fewer of a fine ladder's rungs, evenly apart: neighbours tell the same."""
    rungs = sorted({point.rung for point in asked})
    if len(rungs) <= _MOST_RUNGS:
        return asked
    kept = {rungs[round(index)] for index in np.linspace(0, len(rungs) - 1, _MOST_RUNGS)}
    return [point for point in asked if point.rung in kept]


def where_something_may_learn(asked: list[Point], outcomes: Mapping[Point, Outcome]) -> list[Point]:
    """Those of rungs that were not tried, and below the first that was too large."""
    tried = {point.rung for point in outcomes}
    too_high = min(
        (point.rung for point, its in outcomes.items() if its.diverged and its.reason != "no_learning"),
        default=math.inf,
    )
    return [point for point in asked if point.rung not in tried and point.rung < too_high]


def must_be_tried(
    question: Question,
    outcomes: Mapping[Point, Outcome],
    floor: float | None,
    best: float | None,
    asked: Sequence[Point],
) -> Point | None:
    """A run at a smaller value than all that were tried, where the best loss may lie there."""
    if best is None:
        return None
    lowest, limit = min(point.rung for point in outcomes), _should_be_tried(question, outcomes, floor)
    lower = [point for point in asked if point.rung < lowest]
    if not lower or question.values[lowest] <= limit:
        return None
    small = [point for point in lower if question.values[point.rung] <= limit]
    return small[-1] if small else lower[0]


def is_open(
    point: Point,
    question: Question,
    outcomes: Mapping[Point, Outcome],
    running: Collection[Point],
    its: Posterior,
    useful_S: np.ndarray,
) -> bool:
    """False for a run that was cut, unless an edge may lie at its value: what it would end with is known well
    enough.
    """
    if point in running or point not in outcomes:
        return True
    x = math.log(question.values[point.rung])
    edges = [useful_S] * (question.criterion != "stable") + [its.stable_S] * (question.criterion != "useful")
    return any(low <= x <= high for low, high in map(interval, edges))


def first_point(question: Question, hints: Sequence[float]) -> Point:
    """Below where the edge may lie: what the best loss is must be known first."""
    rungs = range(len(question.ladder))
    if not hints:
        return Point(len(question.ladder) // 4, 0)
    near = median(math.log(hint) for hint in hints)
    below = [rung for rung in rungs if math.log(question.ladder[rung]) < near]
    return Point(below[-1] if below else 0, 0)


def expected_costs(
    its: Posterior, outcomes: Mapping[Point, Outcome], candidates: Sequence[Point], max_steps: int | None
) -> np.ndarray:
    """The steps that each run is expected to take, as a share of a full one."""
    diverged = [share_of_run(its, max_steps) for its in outcomes.values() if its.diverged]
    early = sum(diverged) / len(diverged) if diverged else _DIVERGED_COST
    done_C = np.array(
        [share_of_run(outcomes[point], max_steps) if point in outcomes else 0.0 for point in candidates]
    )
    cost_C = 1 - (1 - min(early, 1.0)) * its.breaks_SC.mean(axis=0)
    return np.maximum(cost_C - done_C, 0.05)


def share_of_run(outcome: Outcome, max_steps: int | None) -> float:
    return outcome.optimizer_steps / max_steps if max_steps else 1.0
