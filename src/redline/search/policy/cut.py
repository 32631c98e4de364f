"""The chance that a run under way ends useful, judged by the runs of its seed at smaller LRs.

Runs of one seed see the same batches, so the gap between their training losses has little of the batches'
noise. The gap to the best smaller run, in units of what that run learns until its end (floor less its final
loss), is the lost share so far. A part of the gap closes by the end. The final lost share has a Student's
t-distribution around the rest, whose scale is in proportion to how much of the run is left. A gap that moves
to and fro is known less well, so that is added to the scale.

Where the best smaller run has not ended, its final loss is an estimate from its curve so far.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from redline.search.policy.edges import interval
from redline.search.policy.points import Point, floor_of
from redline.search.policy.state import SearchState
from redline.stability import Outcome

_NODES = 15  # equally likely values that stand for a normal distribution


@dataclass(frozen=True)
class CutPrior:
    """How gaps develop; "rest" is the share of the run that is left, from 1 to 0.

    Set on `bench/forecast_curves.npz`; `bench/cut.py` judges them on curves that they were not set on.
    """

    # Share of the run before which nothing is said: about twice the warm-up (8%), for the spike after it.
    wait: float = 0.15
    # Share of the run over which losses are averaged. Longer ones save less, shorter ones cut useful runs.
    window: float = 0.06
    # Share of the gap that closes by the end, times the rest. The recent trend of the gap predicts no more.
    closing: float = 0.25
    # Scale of the final lost share, times the rest. The likeliest is 0.155, but then 3% of the final gaps are
    # below the 2% quantile from 55% to 75% of the run: some runs begin to learn late. With this, 1.3% are.
    spread: float = 0.2
    # The same at the end: gaps in validation loss differ from those in training loss by 0.03 nats.
    end_spread: float = 0.02
    # How far the best run's loss will still fall over how far it would if it went on along a straight line
    # over log time; a normal distribution's mean and standard deviation.
    fall: float = 0.9
    fall_spread: float = 0.5


DEFAULT = CutPrior()


@dataclass(frozen=True)
class Curve:
    """A run at a smaller LR. ``losses``: the mean training loss of each of its windows so far, in nats.
    ``final``: its final loss in nats; None where it is running, was cut or has diverged.
    """

    losses: Sequence[float]
    final: float | None = None


@dataclass(frozen=True)
class Prospect:
    """What is expected of a run. ``loss``: its final loss in nats; ``spread``: its standard deviation."""

    chance_useful: float
    loss: float
    spread: float


def prospect(
    losses: Sequence[float],
    smaller: Sequence[Curve],
    *,
    floor: float,
    lost_share: float = 0.25,
    windows: int = 50,
    prior: CutPrior = DEFAULT,
) -> Prospect | None:
    """What to expect of a run with ``losses``, the mean training loss of each of its windows so far, in nats.

    ``windows``: how many equal windows a whole run has. ``floor``: the loss in nats of a model that ignores
    its context. None where there is nothing to compare with: it is early, no smaller run got as far, none has
    learned anything, or a loss is not finite, which the rules of divergence judge.
    """
    done, length = len(losses), max(2, round(prior.window * windows))
    others = [its for its in smaller if len(its.losses) >= done and np.isfinite(its.losses[:done]).all()]
    if done < max(2 * length, prior.wait * windows) or not others or not np.isfinite(losses).all():
        return None
    best = min(others, key=lambda its: float(np.mean(its.losses[done - length : done])))
    rest = 1 - done / windows
    finals = [its.final for its in smaller if its.final is not None and math.isfinite(its.final)]
    learned_K = np.array([max((floor - final for final in finals), default=0.0)])
    if best.final is None:
        learned_K = np.maximum(learned_K, floor - _final_losses(best.losses[:done], length, windows, prior))
    if learned_K.min() <= 0:
        return None
    gaps = np.subtract(losses, best.losses[:done])[-2 * length :]
    share_K = gaps[length:].mean() / learned_K * (1 - prior.closing * rest)
    scale_K = np.hypot(prior.spread * rest + prior.end_spread, _wobble(gaps) / learned_K)
    chance = np.mean([_below(z) for z in (lost_share - share_K) / scale_K])
    # A run that is far above the floor now ends near it, unless it diverges.
    loss_K = floor - learned_K * (1 - np.minimum(share_K, 1))
    # The variance of this t-distribution is 2.
    variance = loss_K.var() + np.mean(2 * (scale_K * learned_K) ** 2)
    return Prospect(float(chance), float(loss_K.mean()), math.sqrt(variance))


def prospect_of(
    point: Point,
    curves: Mapping[Point, Sequence[float]],
    outcomes: Mapping[Point, Outcome],
    *,
    lost_share: float,
    windows: int,
) -> Prospect | None:
    """What to expect of the run at ``point``, as `prospect` does; None before a run has shown the floor.

    ``curves``: the mean training loss of each window of runs that have ended or are under way.
    """
    floor = floor_of(outcomes)
    if floor is None:
        return None
    smaller = []
    for other, losses in curves.items():
        if other.seed == point.seed and other.rung < point.rung:
            ended = outcomes.get(other)
            smaller.append(Curve(losses, None if ended is None or ended.diverged else ended.val_loss))
    return prospect(curves[point], smaller, floor=floor, lost_share=lost_share, windows=windows)


def shows_stable_edge(value: float, state: SearchState) -> bool:
    """Whether it matters if a run at ``value`` diverges, which one that is cut does not tell."""
    if state.question.criterion != "both":
        return state.question.criterion == "stable"
    low, high = interval(state.stable_S)
    return low <= math.log(value) <= high and high - low > math.log(state.question.resolution)


def _final_losses(losses: Sequence[float], length: int, windows: int, prior: CutPrior) -> np.ndarray:
    """Where a run that is under way may end, in nats: values that are equally likely."""
    done = len(losses)
    half = max(length, round(done / 2 + length / 4))  # the last of those whose middle is at half the time
    now, then = (float(np.mean(losses[end - length : end])) for end in (done, half))
    slope = (then - now) / math.log((done - length / 2) / (half - length / 2))
    straight = max(0.0, slope) * math.log(windows / (done - length / 2))
    shares = NormalDist(prior.fall, prior.fall_spread)
    return np.array([now - straight * max(0.0, shares.inv_cdf((k + 0.5) / _NODES)) for k in range(_NODES)])


def _wobble(gaps: np.ndarray) -> float:
    """The standard deviation of gaps around a straight line through them."""
    steps = np.arange(len(gaps))
    residuals = gaps - np.polyval(np.polyfit(steps, gaps, 1), steps)
    return math.sqrt((residuals**2).sum() / (len(gaps) - 2))


def _below(z: float) -> float:
    """The distribution function of Student's t with four degrees of freedom."""
    root = 1 + z * z / 4
    return 0.5 + 0.375 * z / math.sqrt(root) * (1 - z * z / (12 * root))
