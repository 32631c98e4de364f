"""One variant's search at a moment, and what follows from it."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from redline.search.policy import ladder
from redline.search.policy.curve import Run
from redline.search.policy.edges import interval, useful_edges
from redline.search.policy.next_run import Target, ranked
from redline.search.policy.points import Point, finite_losses, mean_losses
from redline.search.policy.posterior import Posterior, posterior
from redline.search.policy.prior import Prior
from redline.stability import Outcome

Stopped = Literal["resolution", "budget", "settled", "runs"]
_PLACES = 48  # of the curve
_ABOVE = 1.0  # in log LR: how far above the highest rung an edge may be read off the curve
_MOST_RUNGS = 14  # that are looked at for the next run
_DIVERGED_COST = 0.4  # of a full run, until one has diverged
_LEARNED = 1e-3  # nats below the floor, relative to it: less is nothing


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


@dataclass(frozen=True)
class SearchState:
    """See `search_state`. Edges are logs of values, in samples that belong together."""

    question: Question
    outcomes: Mapping[Point, Outcome]
    running: Mapping[Point, Any]
    given_up: Collection[Point]
    floor: float | None
    best: float | None
    its: Posterior
    useful_S: np.ndarray
    next: tuple[Point, ...]  # the runs to start, the best first
    stopped: Stopped | None
    next_gain: float | None  # the factor by which one more run would narrow the interval

    @property
    def answered(self) -> bool:
        return self.stopped is not None

    @property
    def stable_S(self) -> np.ndarray:  # noqa: N802
        return self.its.stable_S

    @property
    def width(self) -> float:
        """The useful edge's interval: its upper end over its lower one."""
        return math.exp(_log_width(np.minimum(self.useful_S, self.its.x_X[-1])))

    @property
    def runs_left(self) -> int:
        """About how many further runs the answer needs, those that run among them.

        An interval's width falls with the square root of the number of runs.
        """
        if self.answered:
            return 0
        done = len(self.outcomes)
        needed = max(1, done) * (math.log(self.width) / math.log(self.question.resolution)) ** 2
        most = len(self.question.ladder) * self.question.seeds
        if self.question.budget is not None:
            most = min(most, math.ceil(self.question.budget))
        return max(min(round(needed), most) - done, len(self.running), 1)


def search_state(
    question: Question,
    outcomes: Mapping[Point, Outcome],
    running: Mapping[Point, Any] = MappingProxyType({}),
    given_up: Collection[Point] = (),
    *,
    hints: Sequence[float] = (),
    max_steps: int | None = None,
    wanted: int = 1,
) -> SearchState:
    """What the outcomes say of both edges, and which runs to start: a pure function.

    ``hints``: values near which the edge may lie. ``wanted``: how many runs to name.
    """
    floor = floor_of(outcomes)
    best = _best(outcomes, floor)
    rungs = _open_rungs(question, outcomes, floor, best)
    logs = {rung: math.log(question.values[rung]) for rung in rungs}
    x = np.linspace(logs[rungs[0]], logs[rungs[-1]] + _ABOVE, _PLACES)
    full = {point for point, its in outcomes.items() if its.cut is None}
    points = [Point(rung, seed) for rung in rungs for seed in _seeds(question, outcomes, running, wanted)]
    asked = [point for point in points if point not in full and point not in given_up]
    if best is None:
        asked = _where_something_may_learn(asked, outcomes)
    # Those that run are among the others, so that what the samples are does not depend on what runs.
    kept = _thinned(asked)
    candidates = [point for point in points if point in kept or (point in running and point not in full)]
    its = posterior(
        _runs(outcomes, question, floor, best),
        x.tolist(),
        [(math.log(question.values[point.rung]), point.seed) for point in candidates],
        seeds=question.seeds,
        ends=(logs[rungs[0]], logs[rungs[-1]]),
        prior=question.prior,
        hints=[math.log(hint) for hint in hints],
    )
    useful_S = useful_edges(its, question.lost_share)
    open_C = np.array(
        [_is_open(point, question, outcomes, running, its, useful_S) for point in candidates], bool
    )
    its = replace(its, shares_SC=its.shares_SC[:, open_C], breaks_SC=its.breaks_SC[:, open_C])
    candidates = [point for point, is_open in zip(candidates, open_C, strict=True) if is_open]
    pending = [index for index, point in enumerate(candidates) if point in running]
    targets = _targets(question, its, useful_S)
    narrow = not targets
    if narrow:  # one more run would still narrow this
        targets = _targets(question, its, useful_S, resolution=1.0)
    cost_C = _costs(its, outcomes, candidates, max_steps)
    found = ranked(targets, cost_C, pending, wanted)
    widest = max(_log_width(target.edge_S) for target in targets)
    gain = math.exp(widest * (1 - math.sqrt(1 - found[0][1]))) if found else None
    spent = sum(_share_of_run(outcome, max_steps) for outcome in outcomes.values())
    spent += float(cost_C[pending].sum())
    is_spent = question.budget is not None and spent >= question.budget
    stopped: Stopped | None = None
    chosen = [candidates[index] for index, _ in found]
    first = _first(question, hints)
    if not outcomes and first not in given_up:
        ordered = [first, *(point for point in chosen if point != first)]
        chosen = [point for point in ordered if point not in running][:wanted]
    elif not is_spent and (below := _must_be_tried(question, outcomes, floor, best, asked)):
        chosen = [point for point in [below, *chosen] if point not in running][:wanted]
    elif narrow and best is not None:
        stopped = "resolution"
    elif is_spent:
        stopped = "budget"
    elif not found:
        stopped = "runs"
    elif best is not None and gain is not None and gain < question.settled:
        stopped = "settled"
    if stopped:
        chosen = []
    elif question.budget is not None:
        costs = [float(cost_C[candidates.index(point)]) if point in candidates else 1.0 for point in chosen]
        chosen = [point for rank, point in enumerate(chosen) if spent + sum(costs[:rank]) < question.budget]
    if pending and stopped in ("budget", "runs", "settled"):
        stopped = None  # what runs may still change that
    return SearchState(
        question, outcomes, running, given_up, floor, best, its, useful_S, tuple(chosen), stopped, gain
    )


def _seeds(
    question: Question, outcomes: Mapping[Point, Outcome], running: Mapping[Point, Any], wanted: int
) -> list[int]:
    """Those that have ended runs, and as many new ones as may be wanted: one new seed is like another."""
    begun = {point.seed for point in outcomes}
    new = (seed for seed in range(question.seeds) if seed not in begun)
    return sorted({*begun, *itertools.islice(new, wanted), *(point.seed for point in running)})


def floor_of(outcomes: Mapping[Point, Outcome]) -> float | None:
    """The loss of a model that ignores its context, or else the mean initial loss."""
    known = [its.known_floor for its in outcomes.values() if its.known_floor is not None]
    return median(known) if known else None


def _best(outcomes: Mapping[Point, Outcome], floor: float | None) -> float | None:
    """The smallest final loss; None where no run has learned anything."""
    losses = finite_losses(outcomes).values()
    if not losses or (floor is not None and min(losses) > floor - _LEARNED * abs(floor)):
        return None
    return min(losses)


def share_of(loss: float, floor: float | None, best: float) -> float:
    """0 at the best loss, 1 at the floor and above it. Where no floor is known, only divergence is a loss."""
    return 0.0 if floor is None else min((loss - best) / (floor - best), 1.0)


def too_large(outcomes: Mapping[Point, Outcome]) -> set[Point]:
    """The runs that diverged, but for those at values that were too small to learn anything."""
    best_rung = next(iter(mean_losses(outcomes)), -math.inf)
    return {
        point
        for point, its in outcomes.items()
        if its.diverged and not (its.reason == "no_learning" and point.rung < best_rung)
    }


def _runs(
    outcomes: Mapping[Point, Outcome], question: Question, floor: float | None, best: float | None
) -> list[Run]:
    large = too_large(outcomes)
    runs = []
    for point, its in outcomes.items():
        x = math.log(question.values[point.rung])
        if its.diverged:
            runs.append(Run(x, point.seed, None if point in large else 1.0))
        elif best is not None:
            if its.cut is not None and floor is not None:
                share = share_of(its.cut.loss, floor, best)
                runs.append(Run(x, point.seed, share, its.cut.spread / (floor - best)))
            elif its.val_loss is not None:
                runs.append(Run(x, point.seed, share_of(its.val_loss, floor, best)))
    return runs


def _open_rungs(
    question: Question, outcomes: Mapping[Point, Outcome], floor: float | None, best: float | None
) -> list[int]:
    """The ladder's rungs, and those that it grows by.

    It grows down while its lowest rung has the best loss or none has learned anything, and up while its
    highest one is neither lost nor diverged.
    """
    tried = {point.rung for point in outcomes}
    low, high = min(0, *tried, 0), max(len(question.ladder) - 1, *tried, 0)
    best_rung = next(iter(mean_losses(outcomes)), None)
    while low - 1 in question.values and low in tried and (best is None or best_rung == low):
        low -= 1
    while high + 1 in question.values and high in tried and _good(high, question, outcomes, floor, best):
        high += 1
    return [rung for rung in question.values if low <= rung <= high]


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


def _is_open(
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


def _where_something_may_learn(asked: list[Point], outcomes: Mapping[Point, Outcome]) -> list[Point]:
    """Those of rungs that were not tried, and below the first that was too large."""
    tried = {point.rung for point in outcomes}
    too_high = min(
        (point.rung for point, its in outcomes.items() if its.diverged and its.reason != "no_learning"),
        default=math.inf,
    )
    return [point for point in asked if point.rung not in tried and point.rung < too_high]


def _must_be_tried(
    question: Question,
    outcomes: Mapping[Point, Outcome],
    floor: float | None,
    best: float | None,
    asked: Sequence[Point],
) -> Point | None:
    """A run at a smaller value, where the only useful one that was tried is the smallest.

    How much can be learned, of which a share is lost, is not known then.
    """
    means, lowest = mean_losses(outcomes), min((point.rung for point in outcomes), default=0)
    if best is None or next(iter(means)) != lowest:
        return None
    useful = [rung for rung, loss in means.items() if share_of(loss, floor, best) < question.lost_share]
    lower = [point for point in asked if point.rung < lowest]
    if not lower or useful != [lowest]:
        return None
    # A close neighbour tells the same.
    far = [point for point in lower if 2 * question.values[point.rung] <= question.values[lowest]]
    return far[-1] if far else lower[0]


def _first(question: Question, hints: Sequence[float]) -> Point:
    """Below where the edge may lie: what the best loss is must be known first."""
    rungs = range(len(question.ladder))
    if not hints:
        return Point(len(question.ladder) // 4, 0)
    near = median(math.log(hint) for hint in hints)
    below = [rung for rung in rungs if math.log(question.ladder[rung]) < near]
    return Point(below[-1] if below else 0, 0)


def _thinned(asked: list[Point]) -> list[Point]:
    """Fewer of a fine ladder's rungs, evenly apart: neighbours tell the same."""
    rungs = sorted({point.rung for point in asked})
    if len(rungs) <= _MOST_RUNGS:
        return asked
    kept = {rungs[round(index)] for index in np.linspace(0, len(rungs) - 1, _MOST_RUNGS)}
    return [point for point in asked if point.rung in kept]


def _targets(
    question: Question, its: Posterior, useful_S: np.ndarray, resolution: float | None = None
) -> list[Target]:
    """The edges that are searched and not known well enough yet."""
    goal = math.log(question.resolution if resolution is None else resolution)
    top = its.x_X[-1]
    found = []
    if question.criterion in ("useful", "both"):
        shown_SC = np.where(its.breaks_SC, 1.0, its.shares_SC)
        found.append(Target(np.minimum(useful_S, top), shown_SC))
    if question.criterion in ("stable", "both"):
        edge_S = np.clip(its.stable_S, its.x_X[0] - _ABOVE, top)
        found.append(Target(edge_S, its.breaks_SC.astype(float)))
    return [target for target in found if _log_width(target.edge_S) > goal or resolution == 1.0]


def _log_width(edge_S: np.ndarray) -> float:
    low, high = interval(edge_S)
    return high - low


def _costs(
    its: Posterior, outcomes: Mapping[Point, Outcome], candidates: Sequence[Point], max_steps: int | None
) -> np.ndarray:
    """The steps that each run is expected to take, as a share of a full one."""
    diverged = [_share_of_run(its, max_steps) for its in outcomes.values() if its.diverged]
    early = sum(diverged) / len(diverged) if diverged else _DIVERGED_COST
    done_C = np.array(
        [_share_of_run(outcomes[point], max_steps) if point in outcomes else 0.0 for point in candidates]
    )
    cost_C = 1 - (1 - min(early, 1.0)) * its.breaks_SC.mean(axis=0)
    return np.maximum(cost_C - done_C, 0.05)


def _share_of_run(outcome: Outcome, max_steps: int | None) -> float:
    return outcome.optimizer_steps / max_steps if max_steps else 1.0


def wanted(states: Mapping[str, SearchState]) -> list[tuple[str, Point]]:
    """What free workers should run, over all variants: each variant's best run first, of the variant that
    fewest work on.
    """
    ranked = [
        (len(state.running) + rank, name, point)
        for name, state in states.items()
        for rank, point in enumerate(state.next)
    ]
    return [(name, point) for _, name, point in sorted(ranked, key=lambda entry: entry[0])]
