"""What validation loss an untried run will probably have, from those that were run.

A Gaussian process over log LR (Rasmussen & Williams 2006, section 2.2): one smooth curve that all seeds of a
variant share, an offset a seed, and noise a run. Its scales are about those of the curves in `bench/`.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from redline.search.verdicts import Point

_LENGTH = 1.8  # in log LR: over a factor of 6 in LR the curve can bend
_HEIGHT = 0.4  # nats, of the shared curve
_OFFSET = 0.06  # nats, of a seed
_NOISE = 0.05  # nats, of a run
_TALLEST = 1.0  # nats above the best: losses beyond say no more than this


def expected_losses(
    losses: Mapping[Point, float], points: Sequence[Point], ladder: Sequence[float]
) -> list[NormalDist]:
    """The distribution of each point's validation loss, in nats. ``losses`` are finite, at least one."""
    seen_N = np.array(list(losses.values()))
    seen_N = np.minimum(seen_N, seen_N.min() + _TALLEST)
    mean = float(seen_N.mean())
    covariance_NN = _covariance(list(losses), list(losses), ladder) + _NOISE**2 * np.eye(len(losses))
    covariance_MN = _covariance(points, list(losses), ladder)
    weights_NM = np.linalg.solve(covariance_NN, covariance_MN.T)
    mean_M = mean + weights_NM.T @ (seen_N - mean)
    explained_M = np.einsum("mn,nm->m", covariance_MN, weights_NM)
    variance_M = np.maximum(_HEIGHT**2 + _OFFSET**2 - explained_M, 0) + _NOISE**2
    return [NormalDist(m, math.sqrt(v)) for m, v in zip(mean_M, variance_M, strict=True)]


def _covariance(first: Sequence[Point], second: Sequence[Point], ladder: Sequence[float]) -> np.ndarray:
    logs_1, logs_2 = (np.log([ladder[point.rung] for point in points]) for points in (first, second))
    seeds_1, seeds_2 = (np.array([point.seed for point in points]) for points in (first, second))
    curve = np.exp(-0.5 * ((logs_1[:, None] - logs_2[None, :]) / _LENGTH) ** 2)
    return _HEIGHT**2 * curve + _OFFSET**2 * (seeds_1[:, None] == seeds_2[None, :])
