"""Samples of what a variant's curve may be, given its runs.

What the curve depends on not linearly (where and how fast it rises, how much seeds differ, …) is drawn from
the prior, weighed by the runs, and drawn again where the weights are (adaptive importance sampling: Cappé et
al. 2004, "Population Monte Carlo"). What it depends on linearly is solved for exactly. The random numbers are
always the same ones, so the result is a function of the runs alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import gammaln, ndtr, ndtri

from redline.search.policy.curve import (
    COLUMNS,
    HEIGHT,
    NOISE,
    OFFSET,
    SHIFTS,
    Evidence,
    Known,
    Moments,
    Run,
    break_ends,
    covariance_of,
    log_breaks,
    log_likelihood,
    moments,
    rise_and_fall,
    shift_of,
)
from redline.search.policy.prior import Prior

_FIRST, _NEXT = 1024, 512  # draws from the prior, and in each further round
_ROUNDS, _MOST_ROUNDS = 2, 6
_ENOUGH = 80  # draws that count: with fewer, a round looks at less of the likelihood
_POWERS = 0.7 ** np.arange(20)  # of the likelihood
_FREEDOM = 6  # of Student's t, from which draws are drawn again
_SAMPLES = 400


@dataclass(frozen=True)
class Posterior:
    """Samples (S) of what a variant's curve may be, each as likely as another.

    ``x_X``: logs of values, ascending. ``curve_SX``: the seeds' mean curve there, in lost shares, of seeds
    that do not diverge; ``broken_SX``: the share of seeds that do. ``stable_S``: the log of the value at
    which half of them do. ``shares_SC``, ``breaks_SC``: what a run at each candidate may end with.
    ``shifts_SK``: each seed's along log LR, in standard deviations. ``effective``: how many independent
    samples these are worth.
    """

    x_X: np.ndarray
    curve_SX: np.ndarray
    broken_SX: np.ndarray
    stable_S: np.ndarray
    shares_SC: np.ndarray
    breaks_SC: np.ndarray
    shifts_SK: np.ndarray
    effective: float


def posterior(
    runs: Sequence[Run],
    x: Sequence[float],
    candidates: Sequence[tuple[float, int]],
    *,
    seeds: int,
    ends: tuple[float, float],
    prior: Prior,
    hints: Sequence[float] = (),
) -> Posterior:
    """What ``runs`` say of the curve at ``x``, and of runs at ``candidates`` (log of the value, seed).

    ``ends``: logs of the ladder's ends. ``hints``: logs of values near which the rise may lie.
    """
    told = Evidence(runs, seeds)
    known = Known(ends, prior, hints)
    draws_DP, weights_D = _weighed(told, known)
    chosen_S = _resampled(weights_D)
    effective = float(1 / np.sum(weights_D**2))
    return _sampled(draws_DP[chosen_S], told, known, np.asarray(x), candidates, effective)


def _weighed(told: Evidence, known: Known) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the parameters, and their weights, which sum to 1."""
    draws_DP = known.draws(_uniform(0, _FIRST))
    likelihood_D = log_likelihood(draws_DP, told, known)
    proposals: list[tuple[np.ndarray, np.ndarray]] = []
    while True:
        # All draws together are from a mixture of the prior and of what they were drawn from later.
        log_parts = [known.log_density(draws_DP, hinted=False) + np.log(_FIRST)]
        log_parts += [_log_student(draws_DP, *proposal) + np.log(_NEXT) for proposal in proposals]
        log_mixture_D = np.logaddexp.reduce(log_parts)
        plain_D = known.log_density(draws_DP, hinted=True) - log_mixture_D
        weights_D, whole = _tempered(plain_D, likelihood_D)
        if (whole and len(proposals) >= _ROUNDS) or len(proposals) == _MOST_ROUNDS:
            return draws_DP, _normalised(plain_D + likelihood_D)
        mean_P = weights_D @ draws_DP
        away_DP = draws_DP - mean_P
        root_PP = np.linalg.cholesky((away_DP.T * weights_D) @ away_DP + 1e-4 * np.eye(COLUMNS))
        proposals.append((mean_P, root_PP))
        fresh_DP = mean_P + _student(len(proposals), _NEXT) @ root_PP.T
        draws_DP = np.concatenate([draws_DP, fresh_DP])
        likelihood_D = np.concatenate([likelihood_D, log_likelihood(fresh_DP, told, known)])


def _tempered(plain_D: np.ndarray, likelihood_D: np.ndarray) -> tuple[np.ndarray, bool]:
    """Weights by as much of the likelihood as leaves enough draws that count; whether that is all of it."""
    for power in _POWERS:
        weights_D = _normalised(plain_D + power * likelihood_D)
        if 1 / np.sum(weights_D**2) >= _ENOUGH:
            break
    return weights_D, power == 1


def _normalised(log_D: np.ndarray) -> np.ndarray:
    weights_D = np.exp(log_D - log_D.max())
    return weights_D / weights_D.sum()


@cache
def _uniform(number: int, count: int) -> np.ndarray:
    """Evenly spread in every column (Latin hypercube sampling: McKay et al. 1979)."""
    generator = np.random.default_rng(number)
    ranks = np.array([generator.permutation(count) for _ in range(COLUMNS)]).T
    return (ranks + generator.random((count, COLUMNS))) / count


@cache
def _student(number: int, count: int) -> np.ndarray:
    generator = np.random.default_rng(number)
    normal = generator.standard_normal((count, COLUMNS))
    return normal * np.sqrt(_FREEDOM / generator.chisquare(_FREEDOM, (count, 1)))


def _log_student(draws_DP: np.ndarray, mean_P: np.ndarray, root_PP: np.ndarray) -> np.ndarray:
    square_D = (np.linalg.solve(root_PP, (draws_DP - mean_P).T) ** 2).sum(axis=0)
    size, freedom = COLUMNS, _FREEDOM
    constant = gammaln((freedom + size) / 2) - gammaln(freedom / 2) - size / 2 * np.log(freedom * np.pi)
    constant -= np.log(np.diag(root_PP)).sum()
    return constant - (freedom + size) / 2 * np.log1p(square_D / freedom)


def _resampled(weights_D: np.ndarray) -> np.ndarray:
    """Systematically, so that the same weights give the same samples."""
    places = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    return np.minimum(np.searchsorted(np.cumsum(weights_D), places), len(weights_D) - 1)


def _sampled(
    draws_SP: np.ndarray,
    told: Evidence,
    known: Known,
    x_X: np.ndarray,
    candidates: Sequence[tuple[float, int]],
    effective: float,
) -> Posterior:
    """A sample of the prior for each draw, corrected by what the runs say (Matheron's rule: Wilson et al.
    2020, arXiv 2002.09309).
    """
    luck = np.random.default_rng(0)
    count, seeds = len(draws_SP), len(told.low_K)
    x_C = np.array([x for x, _ in candidates])
    seed_C = np.array([seed for _, seed in candidates], int)
    places = np.concatenate([told.x_N, x_X, x_C])
    seen, curve = slice(len(told.x_N)), slice(len(told.x_N), len(told.x_N) + len(x_X))
    asked = slice(curve.stop, None)
    height_S, noise_S, offset_S = (np.exp(draws_SP[:, its]) for its in (HEIGHT, NOISE, OFFSET))
    shift_S, ours_S = shift_of(draws_SP)

    # Of the prior.
    lengths_S = known.length_index(draws_SP)
    kernels = known.kernels(places, places) + 1e-6 * np.eye(len(places))
    roots = np.linalg.cholesky(kernels)
    bends = np.empty((count, len(places)))
    normal = luck.standard_normal((count, len(places)))
    for index in np.unique(lengths_S):
        mine = lengths_S == index
        bends[mine] = normal[mine] @ roots[index].T
    bends *= height_S[:, None]
    best_S = known.best * luck.standard_normal(count)
    shifts_SK, offsets_SK = luck.standard_normal((2, count, seeds))
    at = moments(draws_SP, places)
    whole = at.mean_DN + bends + best_S[:, None] * at.best_DN

    def of_seed(part: slice, seed: np.ndarray) -> np.ndarray:
        """A seed's own part of the curve, by its shift and offset."""
        shifted = places[part] - shift_S[:, None] * shifts_SK[:, seed]
        away = rise_and_fall(draws_SP, shifted)[0] - at.mean_DN[:, part]
        return np.sqrt(ours_S)[:, None] * away + offset_S[:, None] * offsets_SK[:, seed]

    def of_run(part: slice) -> np.ndarray:
        away = (at.away_DQN[:, :, part] ** 2).mean(axis=1)
        spread = np.sqrt((1 - ours_S)[:, None] * away + noise_S[:, None] ** 2)
        return spread * luck.standard_normal(spread.shape)

    runs_SC = whole[:, asked] + of_seed(asked, seed_C) + of_run(asked)
    if len(told.x_N):
        mine = Moments(at.mean_DN[:, seen], at.away_DQN[:, :, seen], at.best_DN[:, seen])
        drawn_SN = whole[:, seen] + of_seed(seen, told.seed_N) + of_run(seen)
        drawn_SN += told.spread_N * luck.standard_normal(drawn_SN.shape)
        covariance_SNN = covariance_of(draws_SP, mine, told, known)
        pull_SN = np.linalg.solve(covariance_SNN, (told.share_N - drawn_SN)[..., None])[..., 0]
        for index in np.unique(lengths_S):
            of_index = lengths_S == index
            pulled = pull_SN[of_index] @ kernels[index][seen]
            whole[of_index] += height_S[of_index, None] ** 2 * pulled
        best_pull_S = known.best**2 * (at.best_DN[:, seen] * pull_SN).sum(axis=1)
        change = whole - (at.mean_DN + bends + best_S[:, None] * at.best_DN)
        whole += best_pull_S[:, None] * at.best_DN
        runs_SC += change[:, asked] + best_pull_S[:, None] * at.best_DN[:, asked]
        same_NK = told.seed_N[:, None] == np.arange(seeds)
        away_SQN = at.away_DQN[:, :, seen]
        # What each shift (Q) of each seed explains of what was seen.
        explained_SQK = np.matmul(away_SQN * pull_SN[:, None], same_NK)
        weighted_SQK = ours_S[:, None, None] * explained_SQK / len(SHIFTS)
        runs_SC += np.einsum("sqc,sqc->sc", at.away_DQN[:, :, asked], weighted_SQK[:, :, seed_C])
        offset_pull_SK = offset_S[:, None] ** 2 * (pull_SN @ same_NK)
        runs_SC += offset_pull_SK[:, seed_C]
        shifts_SK = shifts_SK + np.einsum("q,sqk->sk", SHIFTS, weighted_SQK) / np.sqrt(ours_S)[:, None]
    # Where seeds diverge is known apart from the curve, so the samples are paired at random.
    edge_B, width_B, log_B = log_breaks(told, known)
    broken_S = np.random.default_rng(1).permutation(_resampled(_normalised(log_B)))
    break_S, width_S = edge_B[broken_S], width_B[broken_S]
    below_SK, above_SK = (ndtr(its) for its in break_ends(break_S, width_S, told))
    share_SK = luck.random((count, seeds))
    own_SK = ndtri((below_SK + (above_SK - below_SK) * share_SK).clip(1e-12, 1 - 1e-12))
    return Posterior(
        x_X=x_X,
        curve_SX=whole[:, curve],
        broken_SX=ndtr((x_X - break_S[:, None]) / width_S[:, None]),
        stable_S=break_S,
        shares_SC=np.minimum(runs_SC, 1.0),
        breaks_SC=x_C > break_S[:, None] + width_S[:, None] * own_SK[:, seed_C],
        shifts_SK=shifts_SK,
        effective=effective,
    )
