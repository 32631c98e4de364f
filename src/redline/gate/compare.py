"""What got worse between two results of the same question, variant by variant. Pure numbers.

**LR.** An edge is known as an interval: `max_useful_lr_90`; from the top rung up for a variant that is
censored above; from 0 to the lowest rung for one censored below. The new edge is worse when its interval
lies wholly below the baseline's: while the two overlap, one edge may lie in both, and another seed
moves an edge by a rung too (`bench/gate_noise.py` shows how often). A variant that had an answer and now has
none (no stable rung, or runs left open) is worse too.

**Loss**, in nats, since perplexity is its exponential and the noise is even in nats. At the same max stable
LR the seeds' losses there are compared: by the interval of Student's t for the mean difference where both
sides have two seeds or more, paired where the seeds are the same (they share weights and batches), by Welch's
otherwise. It is worse when the whole interval is above 0. With a single seed there is no interval, and it is
worse when it is more than ``tolerance`` above the baseline. At different LRs, or where a censored variant has
no LR, losses at the edge would compare different things: then it is the lowest loss that each search has
seen, at whatever LR, by ``tolerance``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from scipy.special import stdtrit

from redline.search.result import SearchResult, VariantResult


@dataclass(frozen=True)
class Change:
    """A number before and now (None: there is none), and whether it got worse.

    ``interval``: of the new edge (LR), or of the loss difference (nats).
    """

    before: float | None
    now: float | None
    worse: bool
    why: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Difference:
    """One variant's."""

    variant: str
    lr: Change
    loss: Change

    @property
    def worse(self) -> bool:
        return self.lr.worse or self.loss.worse


def compare(
    baseline: SearchResult, new: SearchResult, *, tolerance: float, confidence: float
) -> list[Difference]:
    """A difference for every variant of ``baseline``; both have the same ladder, and ``new`` has them all.

    ``tolerance`` in nats; ``confidence`` is the probability of the two-sided interval of Student's t.
    """
    return [
        Difference(
            name,
            compare_lr(before, new.variants[name], new.ladder),
            compare_loss(before, new.variants[name], tolerance, confidence),
        )
        for name, before in baseline.variants.items()
    ]


def compare_lr(before: VariantResult, now: VariantResult, ladder: Sequence[float]) -> Change:
    was, is_now = edge_interval(before, ladder), edge_interval(now, ladder)
    edges = before.max_useful_lr, now.max_useful_lr
    if was is None:
        return Change(*edges, False, "the baseline has no answer", is_now)
    if is_now is None:
        return Change(*edges, True, "no answer: runs were left open")
    if now.censored == "below" and before.censored != "below":
        return Change(*edges, True, "no rung is stable any more", is_now)
    if is_now[1] < was[0]:
        span = f"{was[0]:.3g}–{was[1]:.3g}"
        return Change(*edges, True, f"the edge lies below the baseline's interval {span}", is_now)
    if is_now[0] > was[1]:
        return Change(*edges, False, "the edge lies above the baseline's interval", is_now)
    why = "the same interval" if is_now == was else "the intervals overlap"
    return Change(*edges, False, why, is_now)


def edge_interval(its: VariantResult, ladder: Sequence[float]) -> tuple[float, float] | None:
    """Where the edge lies; None for a variant without an answer."""
    if its.censored == "above":
        return ladder[-1], math.inf
    if its.censored == "below":
        return 0.0, ladder[0]
    # Old results have no interval; their bracket is used.
    low, high = its.max_useful_lr, its.first_diverged_lr
    return its.max_useful_lr_90 or (None if low is None or high is None else (low, high))


def compare_loss(before: VariantResult, now: VariantResult, tolerance: float, confidence: float) -> Change:
    edge = before.max_useful_lr
    if edge is None or edge != now.max_useful_lr:
        return _compare_lowest(before, now, tolerance)
    old, new = _losses(before), _losses(now)
    means = (fmean(old.values()) if old else None, fmean(new.values()) if new else None)
    if means[0] is None or means[1] is None:
        return Change(*means, means[0] is not None, "no loss at the edge")
    if min(len(old), len(new)) < 2:
        worse = means[1] - means[0] > tolerance
        return Change(*means, worse, f"one seed, {_by(worse, tolerance)}")
    paired = old.keys() == new.keys()
    interval = (
        paired_interval([new[seed] - old[seed] for seed in old], confidence)
        if paired
        else welch_interval(list(old.values()), list(new.values()), confidence)
    )
    return Change(*means, interval[0] > 0, "seeds paired" if paired else "seeds not paired", interval)


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
    apart = "no edges" if before.max_useful_lr == now.max_useful_lr else "the edges differ"
    why = f"{apart}: lowest losses, at {before.best_lr:g} and {now.best_lr:g}, {_by(worse, tolerance)}"
    return Change(old, new, worse, why)


def _by(worse: bool, tolerance: float) -> str:
    return f"{'more' if worse else 'not more'} than {tolerance:g} above"


def _losses(its: VariantResult) -> Mapping[str, float]:
    """Seed -> nats at the edge. Older results have only their mean, which counts as one seed."""
    mean = {} if its.val_loss is None else {"mean": its.val_loss}
    return its.val_losses or mean
