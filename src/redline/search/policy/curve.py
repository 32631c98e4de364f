"""The model of a variant's final loss over log LR, and of where it diverges; how well draws explain the runs.

The loss counts in lost shares: 0 is the best loss seen, 1 the floor, the loss of a model that ignores its
context. A variant's curve is a rise from the best loss to the floor (a logistic in log LR), a fall below it
where smaller values learn less, and a Gaussian process for what these two leave (Rasmussen & Williams 2006,
section 2.2). A seed shifts its curve along log LR and offsets it; a run shifts it further, and adds noise. A
seed diverges from a value of its own on. Diverged runs say that this value was reached, and nothing else of
the loss.

Suffixes of arrays: D draws (S: those that are kept), P parameters, N runs, K seeds, Q shifts, X and C places.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from redline.search.policy.prior import Prior

_TURN = 0.3  # in log LR: how gently the fall turns into the rise
_FAR = 700.0  # widths: beyond it, exp overflows
# Shifts that stand for a normal distribution, each as likely as another. A cliff's mean over seeds is their
# distribution function, which the few nodes of a Gaussian quadrature know badly.
_NODES = 9
SHIFTS = ndtri((np.arange(_NODES) + 0.5) / _NODES)
SHIFTS /= np.sqrt(np.mean(SHIFTS**2))
_LENGTHS = 8  # of bends: the only ones that are tried, so that their covariances are computed once
_EDGES, _WIDTHS = 300, 12  # of the grid of values at which seeds diverge
_NUMBERS = 5_000_000  # of covariances that are in memory at once
_LAPSE = 1e-6  # of verdicts that follow no order

# Columns of a draw. All but the first are logs.
RISE, WIDTH, SKEW, SLOPE, HEIGHT, LENGTH, NOISE, OFFSET, SHIFT, RUN_SHIFT = range(10)
COLUMNS = 10


@dataclass(frozen=True)
class Run:
    """What a run tells. ``x``: the log of its value. ``share``: its final loss as a lost share, None where it
    diverged. ``spread``: the standard deviation of ``share``, where the run was cut and it is a guess.
    """

    x: float
    seed: int
    share: float | None
    spread: float = 0.0


class Evidence:
    """Runs as arrays (N: those that did not diverge; K: seeds)."""

    def __init__(self, runs: Sequence[Run], seeds: int) -> None:
        # Sums of floats depend on their order, which must not be that in which runs ended.
        ordered = sorted(runs, key=lambda run: (run.x, run.seed, -1.0 if run.share is None else run.share))
        kept = [run for run in ordered if run.share is not None]
        self.x_N = np.array([run.x for run in kept])
        self.seed_N = np.array([run.seed for run in kept], int)
        self.share_N = np.array([min(run.share, 1.0) for run in kept if run.share is not None])
        self.spread_N = np.array([run.spread for run in kept])
        self.same_NN = self.seed_N[:, None] == self.seed_N
        # Between these each seed begins to diverge; the first may be above the second.
        self.low_K, self.high_K = np.full(seeds, -np.inf), np.full(seeds, np.inf)
        for run in ordered:
            if run.share is None:
                self.high_K[run.seed] = min(self.high_K[run.seed], run.x)
            elif not run.spread:
                self.low_K[run.seed] = max(self.low_K[run.seed], run.x)


class Known:
    """The prior as arrays. ``ends``: logs of the ladder's ends. ``hints``: logs of values near which the rise
    may lie.
    """

    def __init__(self, ends: tuple[float, float], prior: Prior, hints: Sequence[float]) -> None:
        pairs = (
            prior.rise_width,
            prior.rise_skew,
            prior.fall_slope,
            prior.bend_height,
            prior.bend_length,
            prior.noise,
            prior.seed_offset,
            prior.seed_shift,
            prior.run_shift,
        )
        medians, spreads = np.array(pairs).T
        self.medians, self.spreads = np.log(medians), spreads
        self.low, self.high = ends[0] - prior.beyond, ends[1] + prior.beyond
        self.best = prior.best_height
        likely = ndtri((np.arange(_LENGTHS) + 0.5) / _LENGTHS)
        self.lengths = np.exp(self.medians[LENGTH - 1] + self.spreads[LENGTH - 1] * likely)
        self.hints, self.prior = np.array(hints), prior

    def draws(self, uniform_DP: np.ndarray) -> np.ndarray:
        """Of the parameters, from numbers between 0 and 1."""
        draws_DP = np.empty_like(uniform_DP)
        draws_DP[:, RISE] = self.low + (self.high - self.low) * uniform_DP[:, RISE]
        draws_DP[:, 1:] = self.medians + self.spreads * ndtri(uniform_DP[:, 1:])
        return draws_DP

    def log_density(self, draws_DP: np.ndarray, *, hinted: bool) -> np.ndarray:
        """Of the prior, with or without the hints."""
        inside_D = (draws_DP[:, RISE] >= self.low) & (draws_DP[:, RISE] <= self.high)
        log_D = -0.5 * (((draws_DP[:, 1:] - self.medians) / self.spreads) ** 2).sum(axis=1)
        log_D -= (
            np.log(self.spreads).sum() + (COLUMNS - 1) / 2 * np.log(2 * np.pi) + np.log(self.high - self.low)
        )
        if hinted and len(self.hints):
            # Half of it is flat, half is Student's t around the hints: they are never a limit.
            spread = self.prior.hint_spread
            peaks_DH = (1 + ((draws_DP[:, RISE, None] - self.hints) / spread) ** 2 / 2) ** -1.5
            log_D += np.log(0.5 + 0.5 * (self.high - self.low) * peaks_DH.mean(axis=1) / (8**0.5 * spread))
        return np.where(inside_D, log_D, -np.inf)

    def length_index(self, draws_DP: np.ndarray) -> np.ndarray:
        """Which of ``lengths`` each draw's bends have."""
        away_D = (draws_DP[:, LENGTH] - self.medians[LENGTH - 1]) / self.spreads[LENGTH - 1]
        return np.minimum((_LENGTHS * ndtr(away_D)).astype(int), _LENGTHS - 1)

    def kernels(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Of the Gaussian process with height 1, for every length."""
        apart = (first[:, None] - second) / self.lengths[:, None, None]
        return np.exp(-0.5 * apart**2)


def rise_and_fall(draws_DP: np.ndarray, x_DN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve of a seed without its bends, and how much of it depends on the best loss."""
    shape = (-1,) + (1,) * (x_DN.ndim - 1)
    rise_D = draws_DP[:, RISE].reshape(shape)
    width_D, skew_D, slope_D = (np.exp(draws_DP[:, its]).reshape(shape) for its in (WIDTH, SKEW, SLOPE))
    # A generalised logistic (Richards 1959) that is a quarter at `rise_D`.
    steep_D = np.log(4) / skew_D
    quarter_D = steep_D + np.log(-np.expm1(-steep_D))
    below_DN = np.minimum(quarter_D + (rise_D - x_DN) / width_D, _FAR)
    grown = np.exp(-skew_D * np.log1p(np.exp(below_DN)))
    below = rise_D - 2 * width_D - x_DN
    return grown + slope_D * 0.5 * (below + np.sqrt(below**2 + _TURN**2)), 1 - grown


@dataclass(frozen=True)
class Moments:
    """At places (N): the curve's mean over shifts, each shift's deviation from it, the best loss' part."""

    mean_DN: np.ndarray
    away_DQN: np.ndarray
    best_DN: np.ndarray


def shift_of(draws_DP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The standard deviation of a run's shift, and the share of its variance that is its seed's."""
    seed_D, run_D = np.exp(2 * draws_DP[:, SHIFT]), np.exp(2 * draws_DP[:, RUN_SHIFT])
    return np.sqrt(seed_D + run_D), seed_D / (seed_D + run_D)


def moments(draws_DP: np.ndarray, x_N: np.ndarray) -> Moments:
    """Of a run's curve over its shift."""
    shifted = x_N - shift_of(draws_DP)[0][:, None, None] * SHIFTS[:, None]
    curve_DQN, best_DQN = rise_and_fall(draws_DP, shifted)
    mean_DN = curve_DQN.mean(axis=1)
    return Moments(mean_DN, curve_DQN - mean_DN[:, None], best_DQN.mean(axis=1))


def covariance_of(draws_DP: np.ndarray, at: Moments, told: Evidence, known: Known) -> np.ndarray:
    """Of the shares that were seen."""
    size = len(told.x_N)
    height_D, noise_D, offset_D = (np.exp(2 * draws_DP[:, its]) for its in (HEIGHT, NOISE, OFFSET))
    shift_DNN = np.matmul(at.away_DQN.transpose(0, 2, 1), at.away_DQN) / _NODES
    ours_D = shift_of(draws_DP)[1]
    covariance = ours_D[:, None, None] * shift_DNN + offset_D[:, None, None]
    covariance *= told.same_NN
    covariance += known.best**2 * at.best_DN[:, :, None] * at.best_DN[:, None]
    covariance += height_D[:, None, None] * known.kernels(told.x_N, told.x_N)[known.length_index(draws_DP)]
    own = np.arange(size)
    covariance[:, own, own] += (
        (1 - ours_D[:, None]) * shift_DNN[:, own, own] + noise_D[:, None] + told.spread_N**2
    )
    return covariance


def log_likelihood(draws_DP: np.ndarray, told: Evidence, known: Known) -> np.ndarray:
    """Of the shares that were seen, up to a constant."""
    if not len(told.x_N):
        return np.zeros(len(draws_DP))
    # Many runs a variant would need gigabytes for all draws at once.
    parts = np.array_split(draws_DP, math.ceil(len(draws_DP) * len(told.x_N) ** 2 / _NUMBERS))
    return np.concatenate([_log_likelihood(part_DP, told, known) for part_DP in parts])


def _log_likelihood(draws_DP: np.ndarray, told: Evidence, known: Known) -> np.ndarray:
    at = moments(draws_DP, told.x_N)
    root_DNN = np.linalg.cholesky(covariance_of(draws_DP, at, told, known))
    white_DN = np.linalg.solve(root_DNN, (told.share_N - at.mean_DN)[..., None])[..., 0]
    diagonal_DN = np.diagonal(root_DNN, axis1=1, axis2=2)
    return -0.5 * (white_DN**2).sum(axis=1) - np.log(diagonal_DN).sum(axis=1)


def log_breaks(told: Evidence, known: Known) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grid of where half of the seeds diverge (its log) and of how much seeds differ there; the log of how
    well each explains the verdicts. Each seed diverges from a value between the two that it has shown.
    """
    (middle, spread), edges = known.prior.seed_break, np.linspace(known.low, known.high, _EDGES)
    widths = middle * np.exp(spread * ndtri((np.arange(_WIDTHS) + 0.5) / _WIDTHS))
    edge_B, width_B = (its.ravel() for its in np.meshgrid(edges, widths))
    below_BK, above_BK = break_ends(edge_B, width_B, told)
    ordered_BK = ndtr(above_BK) - ndtr(below_BK)
    each_BK = ndtr(above_BK) * ndtr(-below_BK)  # where a seed ran stably above a run that diverged
    likelihood_BK = np.where(told.high_K > told.low_K, ordered_BK, each_BK)
    log_B = np.log(likelihood_BK.clip(0) * (1 - _LAPSE) + _LAPSE).sum(axis=1)
    return edge_B, width_B, log_B


def break_ends(edge: np.ndarray, width: np.ndarray, told: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """In standard deviations of seeds."""
    return (told.low_K - edge[:, None]) / width[:, None], (told.high_K - edge[:, None]) / width[:, None]
