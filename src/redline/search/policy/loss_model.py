"""What validation loss an untried run will probably have, from those that were run.

A Gaussian process over log LR (Rasmussen & Williams 2006, sections 2.2 and 5.4.1): one smooth curve that all
seeds of a variant share, an offset a seed, and noise a run. How much seeds and runs differ is learned from
the losses. The curve's scales are those that find edges in `bench/search_replay.py`: the likeliest ones are
smaller (a length of about 0.6, a height of 0.1 to 0.2) and find fewer.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from redline.search.policy.verdicts import Point

_LENGTH = 1.8  # in log LR: over a factor of 6 in LR the curve can bend
_HEIGHT = 0.4  # nats, of the shared curve
_NOISES = (0.0125, 0.025, 0.05)  # nats, of a run: one of these, as likely as another
_OFFSET = 1.2  # of a seed, as a multiple of the noise
_TALLEST = 0.5  # nats above the best: losses beyond, where runs diverge, say no more than this


def expected_losses(
    losses: Mapping[Point, float], points: Sequence[Point], ladder: Sequence[float]
) -> list[NormalDist]:
    """The distribution of each point's validation loss, in nats. ``losses`` are finite, at least one."""
    seen_N = np.array(list(losses.values()))
    seen_N = np.minimum(seen_N, seen_N.min() + _TALLEST)
    mean = float(seen_N.mean())
    fits = [_fit(noise, seen_N - mean, list(losses), points, ladder) for noise in _NOISES]
    evidence_K, means_KM, variances_KM = (np.array(values) for values in zip(*fits, strict=True))
    weights_K = np.exp(evidence_K - evidence_K.max())
    weights_K /= weights_K.sum()
    mean_M = weights_K @ means_KM
    variance_M = weights_K @ (variances_KM + (means_KM - mean_M) ** 2)
    return [NormalDist(mean + m, math.sqrt(v)) for m, v in zip(mean_M, variance_M, strict=True)]


def _fit(
    noise: float, seen_N: np.ndarray, seen: Sequence[Point], points: Sequence[Point], ladder: Sequence[float]
) -> tuple[float, np.ndarray, np.ndarray]:
    """The log of how well this noise explains ``seen_N``, and the mean and variance of each of ``points``."""
    offset = _OFFSET * noise
    covariance_NN = _covariance(seen, seen, ladder, offset) + noise**2 * np.eye(len(seen))
    covariance_MN = _covariance(points, seen, ladder, offset)
    weights_NM = np.linalg.solve(covariance_NN, covariance_MN.T)
    evidence = -0.5 * (
        seen_N @ np.linalg.solve(covariance_NN, seen_N) + np.linalg.slogdet(covariance_NN).logabsdet
    )
    explained_M = np.einsum("mn,nm->m", covariance_MN, weights_NM)
    variance_M = np.maximum(_HEIGHT**2 + offset**2 - explained_M, 0) + noise**2
    return float(evidence), weights_NM.T @ seen_N, variance_M


def _covariance(
    first: Sequence[Point], second: Sequence[Point], ladder: Sequence[float], offset: float
) -> np.ndarray:
    logs_1, logs_2 = (np.log([ladder[point.rung] for point in points]) for points in (first, second))
    seeds_1, seeds_2 = (np.array([point.seed for point in points]) for points in (first, second))
    curve = np.exp(-0.5 * ((logs_1[:, None] - logs_2[None, :]) / _LENGTH) ** 2)
    return _HEIGHT**2 * curve + offset**2 * (seeds_1[:, None] == seeds_2[None, :])
