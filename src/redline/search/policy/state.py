"""One variant's search at a moment, and what follows from it."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from redline.search.policy.candidates import (
    expected_costs,
    first_point,
    is_open,
    must_be_tried,
    open_rungs,
    seeds_of,
    share_of_run,
    thinned,
    where_something_may_learn,
)
from redline.search.policy.curve import Run
from redline.search.policy.edges import interval, useful_edges
from redline.search.policy.next_run import Target, ranked
from redline.search.policy.points import Point, best_of, floor_of, share_of, too_large
from redline.search.policy.posterior import Posterior, posterior
from redline.search.policy.question import Question
from redline.stability import Outcome

Stopped = Literal["resolution", "budget", "settled", "runs"]
_PLACES = 48  # of the curve
_ABOVE = 1.0  # in log LR: how far above the highest rung an edge may be read off the curve


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
    best = best_of(outcomes, floor)
    rungs = open_rungs(question, outcomes, floor, best)
    logs = {rung: math.log(question.values[rung]) for rung in rungs}
    x = np.linspace(logs[rungs[0]], logs[rungs[-1]] + _ABOVE, _PLACES)
    full = {point for point, its in outcomes.items() if its.cut is None}
    points = [Point(rung, seed) for rung in rungs for seed in seeds_of(question, outcomes, running, wanted)]
    asked = [point for point in points if point not in full and point not in given_up]
    if best is None:
        asked = where_something_may_learn(asked, outcomes)
    # Those that run are among the others, so that what the samples are does not depend on what runs.
    kept = thinned(asked)
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
        [is_open(point, question, outcomes, running, its, useful_S) for point in candidates], bool
    )
    its = replace(its, shares_SC=its.shares_SC[:, open_C], breaks_SC=its.breaks_SC[:, open_C])
    candidates = [point for point, is_open in zip(candidates, open_C, strict=True) if is_open]
    pending = [index for index, point in enumerate(candidates) if point in running]
    targets = _targets(question, its, useful_S)
    narrow = not targets
    if narrow:  # one more run would still narrow this
        targets = _targets(question, its, useful_S, resolution=1.0)
    cost_C = expected_costs(its, outcomes, candidates, max_steps)
    found = ranked(targets, cost_C, pending, wanted)
    widest = max(_log_width(target.edge_S) for target in targets)
    gain = math.exp(widest * (1 - math.sqrt(1 - found[0][1]))) if found else None
    # Those that run count as full runs: that one ends early is a guess.
    spent = sum(share_of_run(outcome, max_steps) for outcome in outcomes.values()) + len(pending)
    is_spent = question.budget is not None and spent >= question.budget
    stopped: Stopped | None = None
    chosen = [candidates[index] for index, _ in found]
    first = first_point(question, hints)
    if not outcomes and first not in given_up:
        ordered = [first, *(point for point in chosen if point != first)]
        chosen = [point for point in ordered if point not in running][:wanted]
    elif not is_spent and (below := must_be_tried(question, outcomes, floor, best, asked)):
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
        chosen = chosen[: max(0, math.ceil(question.budget - spent))]
    if pending and stopped in ("budget", "runs", "settled"):
        stopped = None  # what runs may still change that
    return SearchState(
        question, outcomes, running, given_up, floor, best, its, useful_S, tuple(chosen), stopped, gain
    )


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
