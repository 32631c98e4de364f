"""The two edges that follow from samples of a curve."""

import numpy as np

from redline.search.policy.posterior import Posterior


def lost_shares(its: Posterior) -> np.ndarray:
    """At each value what share of the best smaller value's learning is gone, on the seeds' mean curve (S, X).

    A diverged run has learned nothing.
    """
    mean_SX = its.curve_SX + (1 - its.curve_SX) * its.broken_SX
    best_SX = np.minimum.accumulate(mean_SX, axis=1)
    return (mean_SX - best_SX) / np.maximum(1 - best_SX, 1e-6)


def useful_edges(its: Posterior, lost_share: float) -> np.ndarray:
    """The log of the value at which the lost share first crosses ``lost_share``, in every sample (S).

    Infinite where it does not.
    """
    lost_SX = lost_shares(its)
    crossed_SX = lost_SX >= lost_share
    first_S = np.argmax(crossed_SX, axis=1)  # never 0 where there is one: the first value has lost nothing
    samples = np.arange(len(lost_SX))
    above_S, below_S = lost_SX[samples, first_S], lost_SX[samples, first_S - 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        part_S = (lost_share - below_S) / (above_S - below_S)
    edges_S = its.x_X[first_S - 1] + part_S * (its.x_X[first_S] - its.x_X[first_S - 1])
    return np.where(crossed_SX.any(axis=1), edges_S, np.inf)


def interval(edges_S: np.ndarray, probability: float = 0.9) -> tuple[float, float]:
    """The central one that holds the edge with ``probability``."""
    tail = (1 - probability) / 2
    low, high = np.quantile(edges_S, [tail, 1 - tail], method="nearest")
    return float(low), float(high)
