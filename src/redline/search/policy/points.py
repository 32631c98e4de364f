"""The runs that a search may ask for, and what those that ended say of the final loss."""

import math
from collections.abc import Mapping
from statistics import fmean, median
from typing import NamedTuple

from redline.stability import Outcome

_LEARNED = 1e-3  # nats below the floor, relative to it: less is nothing


class Point(NamedTuple):
    """A rung and a seed. Rung 0 is the ladder's first; an extended ladder has others outside it."""

    rung: int
    seed: int


def finite_losses(outcomes: Mapping[Point, Outcome]) -> dict[Point, float]:
    """In nats; runs without a finite one left out."""
    return {
        point: its.val_loss
        for point, its in outcomes.items()
        if its.val_loss is not None and math.isfinite(its.val_loss)
    }


def mean_losses(outcomes: Mapping[Point, Outcome]) -> dict[int, float]:
    """Rung -> the mean over its seeds, in nats; the best rung first."""
    losses: dict[int, list[float]] = {}
    for point, loss in sorted(finite_losses(outcomes).items()):
        losses.setdefault(point.rung, []).append(loss)
    means = {rung: fmean(values) for rung, values in losses.items()}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def floor_of(outcomes: Mapping[Point, Outcome]) -> float | None:
    """The loss of a model that ignores its context, or else the mean initial loss."""
    known = [its.known_floor for its in outcomes.values() if its.known_floor is not None]
    return median(known) if known else None


def best_of(outcomes: Mapping[Point, Outcome], floor: float | None) -> float | None:
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
