"""What follows from a variant's state: the numbers of its result."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from redline.search.policy.edges import interval, lost_shares
from redline.search.policy.points import Point, finite_losses, mean_losses, too_large
from redline.search.policy.state import SearchState
from redline.search.result import QUANTILES, Curve, VariantResult
from redline.search.trainable import Facts
from redline.stability import Outcome

Side = Literal["above", "below"]
_PLACES = 40  # of the curve
_DOUBT = 0.1  # a run is in doubt where neither of its two chances is below this
_DIGITS = 3  # significant ones of a point and of its interval


@dataclass(frozen=True)
class Edge:
    """``log_S``: samples of its log; None where it is not known. ``side``: where it lies, if it is outside
    all that was tried.
    """

    log_S: np.ndarray | None = None
    side: Side | None = None


def useful_edge(state: SearchState) -> Edge:
    """A sample whose curve does not cross ``lost_share`` counts as the largest value that was looked at."""
    if state.outcomes and state.best is None:
        return Edge(side="below")  # nothing has learned anything
    return _edge(state, state.useful_S)


def stable_edge(state: SearchState) -> Edge:
    """Known where a run diverged and another did not."""
    # Where nothing has learned anything, no value was too small for it.
    large = {point for point, its in state.outcomes.items() if its.diverged}
    large = large if state.best is None else too_large(state.outcomes)
    stable = {point for point, its in state.outcomes.items() if its.cut is None} - large
    if large and stable:
        return _edge(state, state.stable_S)
    return Edge(side="below" if large else "above" if stable else None)


def _edge(state: SearchState, log_S: np.ndarray) -> Edge:
    tried, values = [point.rung for point in state.outcomes], state.question.values
    if not tried:
        return Edge()
    low, high, middle = min(tried), max(tried), float(np.median(log_S))
    crashed = [point.rung for point in state.given_up]
    if middle > math.log(values[high]):
        return Edge(side=None if any(rung > high for rung in crashed) else "above")
    if middle < math.log(values[low]):
        return Edge(side=None if any(rung < low for rung in crashed) else "below")
    return Edge(np.minimum(log_S, state.its.x_X[-1]))


def variant_result(
    state: SearchState,
    facts: Facts,
    *,
    short_runs: Collection[Outcome] = (),
    cancelled_steps: int = 0,
) -> VariantResult:
    """One variant's result; a point is the median of an edge's samples.

    ``short_runs`` and cancelled runs decide nothing; their steps are part of what the answer cost.
    """
    ladder, outcomes, values = state.question.ladder, state.outcomes, state.question.values
    useful, stable = useful_edge(state), stable_edge(state)
    point, stable_point = _point(useful), _point(stable)
    rung = _rung(point, ladder)
    losses = mean_losses(outcomes)
    best_rung = next(iter(losses), None)
    loss = None if rung is None else losses.get(rung, _on_curve(state, rung))
    first, reason, step = _first_diverged(state)
    stable_rung = _rung(stable_point, ladder)
    length = facts.max_steps or max((its.optimizer_steps for its in outcomes.values()), default=0)
    return VariantResult(
        max_useful_lr=point,
        max_useful_lr_90=_interval(useful),
        max_useful_rung=None if rung is None else ladder[rung],
        max_stable_lr=stable_point,
        max_stable_lr_90=_interval(stable),
        max_stable_rung=None if stable_rung is None else ladder[stable_rung],
        censored=useful.side,
        stable_censored=stable.side,
        useful_quantiles=_quantiles(useful),
        stable_quantiles=_quantiles(stable),
        first_diverged_lr=None if first is None else values[first],
        first_diverged_reason=reason,
        first_diverged_step=step,
        val_loss=loss,
        val_losses={} if rung is None else _by_seed(rung, outcomes),
        val_perplexity=None if loss is None else _perplexity(loss, outcomes),
        best_lr=None if best_rung is None else values[best_rung],
        best_val_loss=None if best_rung is None else losses[best_rung],
        floor=state.floor,
        curve=_curve(state),
        trials=len(outcomes),
        cut=sum(its.cut is not None for its in outcomes.values()),
        short_runs=len(short_runs),
        optimizer_steps=sum(its.optimizer_steps for its in [*outcomes.values(), *short_runs])
        + cancelled_steps,
        grid_steps=len(ladder) * state.question.seeds * length,
        interventions=_interventions(outcomes.values()),
        open=_open(state),
        stopped=state.stopped,
        next_gain=None if state.next_gain is None else _rounded(state.next_gain, 4),
        doubtful=_doubtful(state),
        decay_per_step=None if point is None else facts.decay_per_step(point),
        max_steps=facts.max_steps,
        parameters=facts.parameters,
        tokens_per_step=facts.tokens_per_step,
        precision=facts.precision,
    )


def _rounded(value: float, digits: int = _DIGITS) -> float:
    return float(f"{value:.{digits}g}")


def _point(edge: Edge) -> float | None:
    return None if edge.log_S is None else _rounded(math.exp(np.median(edge.log_S)))


def _interval(edge: Edge) -> tuple[float, float] | None:
    if edge.log_S is None:
        return None
    low, high = interval(edge.log_S)
    return _rounded(math.exp(low)), _rounded(math.exp(high))


def _quantiles(edge: Edge) -> tuple[float, ...]:
    if edge.log_S is None:
        return ()
    return tuple(_rounded(float(value), 6) for value in np.exp(np.quantile(edge.log_S, QUANTILES)))


def _rung(point: float | None, ladder: tuple[float, ...]) -> int | None:
    """The largest of the user's own that is not above."""
    return (
        None if point is None else max((i for i, value in enumerate(ladder) if value <= point), default=None)
    )


def _perplexity(loss: float, outcomes: Mapping[Point, Outcome]) -> float | None:
    """exp of the mean loss, where the runs speak of perplexity: the score is then nats per token."""
    return math.exp(loss) if any("perplexity" in its.numbers for its in outcomes.values()) else None


def _by_seed(rung: int, outcomes: Mapping[Point, Outcome]) -> dict[str, float]:
    """Seed -> final score at a rung; of the seeds that ran there."""
    found = finite_losses(outcomes)
    return {str(outcomes[point].seed): found[point] for point in sorted(found) if point.rung == rung}


def _first_diverged(state: SearchState) -> tuple[int | None, str | None, int | None]:
    """The smallest rung at which half of the seeds diverged, the rule that most of them broke, and the
    earliest step at which one of them did; for rules judged at a run's end that is its last step.
    """
    ended: dict[int, list[Outcome]] = {}
    large = {point for point, its in state.outcomes.items() if its.diverged}
    large = large if state.best is None else too_large(state.outcomes)
    for point, its in sorted(state.outcomes.items()):
        if its.cut is None and (point in large or not its.diverged):
            ended.setdefault(point.rung, []).append(its)
    for rung, outcomes in ended.items():
        steps: dict[str, list[int]] = {}
        for its in outcomes:
            if its.reason is not None:
                steps.setdefault(its.reason, []).append(its.step)
        if 2 * sum(map(len, steps.values())) >= len(outcomes):
            reason = max(steps, key=lambda rule: len(steps[rule]))
            return rung, reason, min(steps[reason])
    return None, None, None


def _on_curve(state: SearchState, rung: int) -> float | None:
    """The curve's mean at a rung at which nothing ran."""
    if state.floor is None or state.best is None:
        return None
    share = np.interp(math.log(state.question.values[rung]), state.its.x_X, state.its.curve_SX.mean(axis=0))
    return _rounded(state.best + (state.floor - state.best) * float(share), 4)


def _curve(state: SearchState) -> Curve | None:
    """From the lowest value that was looked at to the highest one on the ladder or tried."""
    if state.floor is None or state.best is None:
        return None
    its, values = state.its, state.question.values
    top = max(math.log(values[point.rung]) for point in state.outcomes)
    x = np.linspace(its.x_X[0], min(max(top, math.log(state.question.ladder[-1])), its.x_X[-1]), _PLACES)
    learned = state.floor - state.best
    low, high = np.quantile(its.curve_SX, [0.05, 0.95], axis=0)
    mean, low, high = (
        state.best + learned * np.interp(x, its.x_X, share)
        for share in (its.curve_SX.mean(axis=0), low, high)
    )
    lost = (lost_shares(its) >= state.question.lost_share).mean(axis=0)
    lost, broken = (np.interp(x, its.x_X, chance) for chance in (lost, its.broken_SX.mean(axis=0)))
    return Curve(
        *(tuple(_rounded(float(y), 4) for y in ys) for ys in (np.exp(x), mean, low, high, lost, broken))
    )


def _interventions(outcomes: Iterable[Outcome]) -> dict[str, int]:
    found: dict[str, int] = {}
    for its in outcomes:
        for name, count in its.interventions.items():
            found[name] = found.get(name, 0) + count
    return found


def _open(state: SearchState) -> tuple[float, ...]:
    """The values at which runs crashed too often, unless the answer is narrow enough without them."""
    rungs = sorted({point.rung for point in state.given_up}) if state.stopped != "resolution" else []
    return tuple(state.question.values[rung] for rung in rungs)


def _doubtful(state: SearchState) -> float | None:
    """The share of the runs that may be on either side of the useful edge."""
    if not state.outcomes or state.best is None:
        return None
    above = [
        (state.useful_S < math.log(state.question.values[point.rung])).mean() for point in state.outcomes
    ]
    return _rounded(sum(_DOUBT < chance < 1 - _DOUBT for chance in above) / len(above))
