"""The runs that a search may ask for, and what those that ended say of the final loss."""

import math
from collections.abc import Mapping
from statistics import fmean
from typing import NamedTuple

from redline.stability import Outcome


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
