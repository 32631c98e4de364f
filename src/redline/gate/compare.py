"""What got worse between two results of the same question, variant by variant. Pure numbers.

**Edges**, the useful one and the stable one. Each search knows an edge as a posterior. The new edge is worse
when it lies below the baseline's with at least the probability ``confidence``. An edge that is censored lies
outside all that was tried, no more is known of it: a baseline above the ladder counts as one at its top, a
new edge below it as one at its bottom. So a wrong alarm is never made of a prior. Old results have no
posterior: their 90% interval stands for one, evenly spread in log LR.

**Loss**, in nats, since perplexity is its exponential and the noise is even in nats. Where both sides have
two seeds or more at the same rung below the useful edge, their losses there are compared: by the interval of
Student's t for the mean difference, paired where the seeds are the same (they share weights and batches), by
Welch's otherwise. It is worse when the whole interval is above 0. With a single seed there is no interval,
and at different rungs losses would compare different things: then it is the lowest loss that each search has
seen, at whatever LR, and it is worse when it is more than ``tolerance`` above the baseline's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

import numpy as np
from scipy.special import stdtrit

from redline.search.result import QUANTILES, Interval, SearchResult, VariantResult

_DRAWS = 4000  # evenly spaced probabilities by which two posteriors are compared: to within 0.0005


@dataclass(frozen=True)
class Change:
    """A number before and now (None: there is none), and whether it got worse.

    ``interval``: of the loss difference, in nats. ``chance``: that the new edge lies below the baseline's.
    """

    before: float | None
    now: float | None
    worse: bool
    why: str
    interval: tuple[float, float] | None = None
    chance: float | None = None


@dataclass(frozen=True)
class Difference:
    """One variant's."""

    variant: str
    useful: Change
    stable: Change
    loss: Change

    @property
    def worse(self) -> bool:
        return self.useful.worse or self.stable.worse or self.loss.worse


@dataclass(frozen=True)
class Edge:
    """What a result says of one edge, in LR."""

    point: float | None
    interval: Interval | None
    quantiles: tuple[float, ...]  # at `QUANTILES`
    censored: str | None
    left_open: bool  # runs that its variant needed crashed too often

    def posterior(self, ladder: Sequence[float]) -> np.ndarray | None:
        """Evenly spaced quantiles of the edge's log; None where nothing is known of it."""
        at = (np.arange(_DRAWS) + 0.5) / _DRAWS
        if self.quantiles:
            return np.interp(at, QUANTILES, np.log(self.quantiles))
        if self.interval is not None:
            return np.interp(at, (0.05, 0.95), np.log(self.interval))
        if self.censored is not None:
            return np.full(_DRAWS, math.log(ladder[-1] if self.censored == "above" else ladder[0]))
        return None


def useful_edge(its: VariantResult) -> Edge:
    point = its.max_useful_rung if its.max_useful_lr is None else its.max_useful_lr
    return Edge(point, its.max_useful_lr_90, its.useful_quantiles, its.censored, bool(its.open))


def stable_edge(its: VariantResult) -> Edge:
    quantiles, censored = its.stable_quantiles, its.stable_censored
    return Edge(its.max_stable_lr, its.max_stable_lr_90, quantiles, censored, bool(its.open))


def compare(
    baseline: SearchResult, new: SearchResult, *, tolerance: float, confidence: float
) -> list[Difference]:
    """A difference for every variant of ``baseline``; both have the same ladder, and ``new`` has them all.

    ``tolerance`` in nats; ``confidence`` is a probability: that an edge fell, and of the two-sided interval
    of Student's t.
    """
    return [
        Difference(
            name,
            compare_edge(useful_edge(before), useful_edge(now), new.ladder, confidence),
            compare_edge(stable_edge(before), stable_edge(now), new.ladder, confidence),
            compare_loss(before, now, tolerance, confidence),
        )
        for name, before in baseline.variants.items()
        for now in [new.variants[name]]
    ]


def compare_edge(before: Edge, now: Edge, ladder: Sequence[float], confidence: float) -> Change:
    points = before.point, now.point
    old, new = before.posterior(ladder), now.posterior(ladder)
    if old is None:
        return Change(*points, False, "not compared: the baseline does not know it")
    if new is None:
        why = "no answer: runs were left open" if now.left_open else "not compared: the new result lacks it"
        return Change(*points, now.left_open, why)
    if before.censored == "below":
        return Change(*points, False, "the baseline's lies below all that was tried")
    if now.censored == "above":
        return Change(*points, False, "lies above all that was tried")
    if before.censored == "above":
        old = np.minimum(old, math.log(ladder[-1]))
    if now.censored == "below":
        new = np.maximum(new, math.log(ladder[0]))
    chance = float(np.searchsorted(new, old).mean() / _DRAWS)
    return Change(*points, chance >= confidence, f"P(lower) {chance:.1%}", chance=chance)


def compare_loss(before: VariantResult, now: VariantResult, tolerance: float, confidence: float) -> Change:
    rung, old, new = before.max_useful_rung, before.val_losses, now.val_losses
    if rung is None or rung != now.max_useful_rung or min(len(old), len(new)) < 2:
        return _compare_lowest(before, now, tolerance)
    paired = old.keys() == new.keys()
    interval = (
        paired_interval([new[seed] - old[seed] for seed in old], confidence)
        if paired
        else welch_interval(list(old.values()), list(new.values()), confidence)
    )
    why = f"at {rung:g}, seeds {'paired' if paired else 'not paired'}"
    return Change(fmean(old.values()), fmean(new.values()), interval[0] > 0, why, interval)


def paired_interval(differences: list[float], confidence: float) -> tuple[float, float]:
    """Of the mean difference, by Student's t with n - 1 degrees of freedom."""
    mean, n = fmean(differences), len(differences)
    return _around(mean, math.sqrt(variance(differences) / n), n - 1, confidence)


def welch_interval(old: list[float], new: list[float], confidence: float) -> tuple[float, float]:
    """Of the difference of two means whose variances need not agree (Welch 1947)."""
    a, b = variance(old) / len(old), variance(new) / len(new)
    freedom = (a + b) ** 2 / (a**2 / (len(old) - 1) + b**2 / (len(new) - 1)) if a + b else 1.0
    return _around(fmean(new) - fmean(old), math.sqrt(a + b), freedom, confidence)


def _around(mean: float, error: float, freedom: float, confidence: float) -> tuple[float, float]:
    reach = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    return mean - reach, mean + reach


def _compare_lowest(before: VariantResult, now: VariantResult, tolerance: float) -> Change:
    old, new = before.best_val_loss, now.best_val_loss
    if old is None or new is None:
        return Change(old, new, old is not None, "no loss to compare")
    worse = new - old > tolerance
    why = (
        f"lowest losses, at {before.best_lr:g} and {now.best_lr:g}, "
        f"{'more' if worse else 'not more'} than {tolerance:g} above"
    )
    return Change(old, new, worse, why)
