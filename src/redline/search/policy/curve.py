"""One smooth curve of the final loss over log LR, and the chance of divergence, learned from all runs.

The loss counts in lost shares: 0 is the best loss seen, 1 the floor, the loss of a model that ignores its
context. A variant's curve is a rise from the best loss to the floor (a logistic in log LR), a fall below it
where smaller values learn less, and a Gaussian process for what these two leave (Rasmussen & Williams 2006,
section 2.2). A seed shifts its curve along log LR and offsets it; a run adds noise. A seed diverges from a
value of its own on. Diverged runs say that this value was reached, and nothing else of the loss.

What the curve depends on not linearly (where and how fast it rises, how much seeds differ, …) is drawn from the
prior, weighed by the runs, and drawn again where the weights are (adaptive importance sampling: Cappé et al.
2004, "Population Monte Carlo"); what it depends on linearly is solved for exactly. The random numbers are
always the same ones, so the result is a function of the runs alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import gammaln, ndtr, ndtri
from scipy.stats import qmc

from redline.search.policy.prior import Prior


@dataclass(frozen=True)
class Run:
    """What a run tells. ``x``: the log of its value. ``share``: its final loss as a lost share, None where it
    diverged. ``spread``: the standard deviation of ``share``, where the run was cut and it is a guess.
    """

    x: float
    seed: int
    share: float | None
    spread: float = 0.0


_FIRST, _NEXT = 1024, 512  # draws from the prior, and in each further round
_ROUNDS, _MOST_ROUNDS = 2, 6
_POWERS = 0.7 ** np.arange(20)
_ENOUGH = 80  # draws
_EDGES, _WIDTHS = 300, 12  # of the grid for breaks
_SAMPLES = 400  # of the posterior
_TURN = 0.3  # in log LR: how gently the fall turns into the rise
_FAR = 50.0  # widths: what lies further below is 0
# Shifts that stand for a normal distribution. They are equally likely: a cliff's mean over seeds is their
# distribution function, which the few nodes of a Gaussian quadrature know badly.
_NODES = ndtri((np.arange(9) + 0.5) / 9)
_NODES /= np.sqrt(np.mean(_NODES**2))
_WEIGHTS = np.full(9, 1 / 9)
_LAPSE = 1e-6  # of verdicts that follow no order
_FREEDOM = 6  # of Student's t, from which draws are drawn again
_LENGTHS = ndtri((np.arange(8) + 0.5) / 8)  # the only ones that are tried, in spreads from the median

# Columns of a draw. All but the first are logs.
RISE, WIDTH, SKEW, SLOPE, HEIGHT, LENGTH, NOISE, OFFSET, SHIFT, RUN_SHIFT = range(10)
_COLUMNS = 10


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


class _Data:
    """Runs as arrays (N: those that did not diverge; K: seeds)."""

    def __init__(self, runs: Sequence[Run], seeds: int) -> None:
        # Sums of floats depend on their order, which must not be that in which runs ended.
        ordered = sorted(runs, key=lambda run: (run.x, run.seed, -1.0 if run.share is None else run.share))
        kept = [run for run in ordered if run.share is not None]
        self.x_N = np.array([run.x for run in kept])
        self.seed_N = np.array([run.seed for run in kept], int)
        self.share_N = np.minimum([run.share for run in kept], 1.0)  # type: ignore[list-item]
        self.spread_N = np.array([run.spread for run in kept])
        self.same_NN = self.seed_N[:, None] == self.seed_N
        # Between these each seed begins to diverge; the first may be above the second.
        self.low_K, self.high_K = np.full(seeds, -np.inf), np.full(seeds, np.inf)
        for run in ordered:
            if run.share is None:
                self.high_K[run.seed] = min(self.high_K[run.seed], run.x)
            elif not run.spread:
                self.low_K[run.seed] = max(self.low_K[run.seed], run.x)


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
    data = _Data(runs, seeds)
    known = _Known(ends, prior, hints)
    draws_DP, weights_D = _weighed(data, known)
    chosen_S = _resampled(weights_D)
    effective = float(1 / np.sum(weights_D**2))
    return _sampled(draws_DP[chosen_S], data, known, np.asarray(x), candidates, effective)


class _Known:
    """The prior as arrays."""

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
        self.lengths = np.exp(self.medians[LENGTH - 1] + self.spreads[LENGTH - 1] * _LENGTHS)
        self.hints, self.prior = np.array(hints), prior

    def draws(self, uniform_DP: np.ndarray) -> np.ndarray:
        draws_DP = np.empty_like(uniform_DP)
        draws_DP[:, RISE] = self.low + (self.high - self.low) * uniform_DP[:, RISE]
        draws_DP[:, 1:] = self.medians + self.spreads * ndtri(uniform_DP[:, 1:])
        return draws_DP

    def log_density(self, draws_DP: np.ndarray, *, hinted: bool) -> np.ndarray:
        inside_D = (draws_DP[:, RISE] >= self.low) & (draws_DP[:, RISE] <= self.high)
        log_D = -0.5 * (((draws_DP[:, 1:] - self.medians) / self.spreads) ** 2).sum(axis=1)
        log_D -= np.log(self.spreads).sum() + 4.5 * np.log(2 * np.pi) + np.log(self.high - self.low)
        if hinted and len(self.hints):
            # Half of it is flat, half is Student's t around the hints: they are never a limit.
            spread = self.prior.hint_spread
            peaks_DH = (1 + ((draws_DP[:, RISE, None] - self.hints) / spread) ** 2 / 2) ** -1.5
            log_D += np.log(0.5 + 0.5 * (self.high - self.low) * peaks_DH.mean(axis=1) / (8**0.5 * spread))
        return np.where(inside_D, log_D, -np.inf)

    def length_index(self, draws_DP: np.ndarray) -> np.ndarray:
        away_D = (draws_DP[:, LENGTH] - self.medians[LENGTH - 1]) / self.spreads[LENGTH - 1]
        return np.clip((8 * ndtr(away_D)).astype(int), 0, 7)

    def kernels(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Of the Gaussian process with height 1, for every length."""
        apart = (first[:, None] - second) / self.lengths[:, None, None]
        return np.exp(-0.5 * apart**2)


def _weighed(data: _Data, known: _Known) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the parameters, and their weights, which sum to 1."""
    draws_DP = known.draws(_uniform(0, _FIRST))
    likelihood_D = _log_likelihood(draws_DP, data, known)
    proposals: list[tuple[np.ndarray, np.ndarray]] = []
    while True:
        # All draws together are from a mixture of the prior and of what they were drawn from later.
        log_parts = [known.log_density(draws_DP, hinted=False) + np.log(_FIRST)]
        log_parts += [_log_student(draws_DP, *proposal) + np.log(_NEXT) for proposal in proposals]
        log_mixture_D = np.logaddexp.reduce(log_parts)
        plain_D = known.log_density(draws_DP, hinted=True) - log_mixture_D
        weights_D, whole = _tempered(plain_D, likelihood_D)
        if whole and len(proposals) >= _ROUNDS or len(proposals) == _MOST_ROUNDS:
            return draws_DP, _normalised(plain_D + likelihood_D)
        mean_P = weights_D @ draws_DP
        away_DP = draws_DP - mean_P
        root_PP = np.linalg.cholesky((away_DP.T * weights_D) @ away_DP + 1e-4 * np.eye(_COLUMNS))
        proposals.append((mean_P, root_PP))
        fresh_DP = mean_P + _student(len(proposals), _NEXT) @ root_PP.T
        draws_DP = np.concatenate([draws_DP, fresh_DP])
        likelihood_D = np.concatenate([likelihood_D, _log_likelihood(fresh_DP, data, known)])


def _tempered(plain_D: np.ndarray, likelihood_D: np.ndarray) -> tuple[np.ndarray, bool]:
    """Weights by as much of the likelihood as leaves enough draws that count, and whether that is all of it."""
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
    return qmc.Sobol(_COLUMNS, seed=number).random(count).clip(1e-9, 1 - 1e-9)


@cache
def _student(number: int, count: int) -> np.ndarray:
    generator = np.random.default_rng(number)
    normal = generator.standard_normal((count, _COLUMNS))
    return normal * np.sqrt(_FREEDOM / generator.chisquare(_FREEDOM, (count, 1)))


def _log_student(draws_DP: np.ndarray, mean_P: np.ndarray, root_PP: np.ndarray) -> np.ndarray:
    square_D = (np.linalg.solve(root_PP, (draws_DP - mean_P).T) ** 2).sum(axis=0)
    size, freedom = _COLUMNS, _FREEDOM
    constant = gammaln((freedom + size) / 2) - gammaln(freedom / 2) - size / 2 * np.log(freedom * np.pi)
    constant -= np.log(np.diag(root_PP)).sum()
    return constant - (freedom + size) / 2 * np.log1p(square_D / freedom)


def _resampled(weights_D: np.ndarray) -> np.ndarray:
    """Systematically, so that the same weights give the same samples."""
    places = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    return np.minimum(np.searchsorted(np.cumsum(weights_D), places), len(weights_D) - 1)


def _rise_and_fall(draws_DP: np.ndarray, x_DN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve of a seed without its bends, and how much of it depends on the best loss."""
    shape = (-1,) + (1,) * (x_DN.ndim - 1)
    rise_D = draws_DP[:, RISE].reshape(shape)
    width_D, skew_D, slope_D = (np.exp(draws_DP[:, its]).reshape(shape) for its in (WIDTH, SKEW, SLOPE))
    # A generalised logistic (Richards 1959) that is a quarter at `rise_D`.
    quarter_D = np.expm1(np.log(4) / skew_D)
    grown = (1 + quarter_D * np.exp(np.minimum((rise_D - x_DN) / width_D, _FAR))) ** -skew_D
    below = rise_D - 2 * width_D - x_DN
    return grown + slope_D * 0.5 * (below + np.sqrt(below**2 + _TURN**2)), 1 - grown


@dataclass(frozen=True)
class _Moments:
    """At places (N): the mean over a seed's shift, each shift's (Q) deviation from it, the best loss' part."""

    mean_DN: np.ndarray
    away_DQN: np.ndarray
    best_DN: np.ndarray


def _shift(draws_DP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The standard deviation of a run's shift, and the share of its variance that is its seed's."""
    seed_D, run_D = np.exp(2 * draws_DP[:, SHIFT]), np.exp(2 * draws_DP[:, RUN_SHIFT])
    return np.sqrt(seed_D + run_D), seed_D / (seed_D + run_D)


def _moments(draws_DP: np.ndarray, x_N: np.ndarray) -> _Moments:
    shifted = x_N - _shift(draws_DP)[0][:, None, None] * _NODES[:, None]
    curve_DQN, best_DQN = _rise_and_fall(draws_DP, shifted)
    mean_DN = np.einsum("q,dqn->dn", _WEIGHTS, curve_DQN)
    return _Moments(mean_DN, curve_DQN - mean_DN[:, None], np.einsum("q,dqn->dn", _WEIGHTS, best_DQN))


def _shift_covariance(first: _Moments, second: _Moments) -> np.ndarray:
    return np.matmul((first.away_DQN * _WEIGHTS[:, None]).transpose(0, 2, 1), second.away_DQN)


def _covariance(draws_DP: np.ndarray, at: _Moments, data: _Data, known: _Known) -> np.ndarray:
    """Of the shares that were seen."""
    size = len(data.x_N)
    height_D, noise_D, offset_D = (np.exp(2 * draws_DP[:, its]) for its in (HEIGHT, NOISE, OFFSET))
    shift_DNN = _shift_covariance(at, at)
    ours_D = _shift(draws_DP)[1]
    covariance = ours_D[:, None, None] * shift_DNN + offset_D[:, None, None]
    covariance *= data.same_NN
    covariance += known.best**2 * at.best_DN[:, :, None] * at.best_DN[:, None]
    covariance += height_D[:, None, None] * known.kernels(data.x_N, data.x_N)[known.length_index(draws_DP)]
    own = np.arange(size)
    covariance[:, own, own] += (
        (1 - ours_D[:, None]) * shift_DNN[:, own, own] + noise_D[:, None] + data.spread_N**2
    )
    return covariance


def _log_likelihood(draws_DP: np.ndarray, data: _Data, known: _Known) -> np.ndarray:
    if not len(data.x_N):
        return np.zeros(len(draws_DP))
    at = _moments(draws_DP, data.x_N)
    root_DNN = np.linalg.cholesky(_covariance(draws_DP, at, data, known))
    white_DN = np.linalg.solve(root_DNN, (data.share_N - at.mean_DN)[..., None])[..., 0]
    diagonal_DN = np.diagonal(root_DNN, axis1=1, axis2=2)
    return -0.5 * (white_DN**2).sum(axis=1) - np.log(diagonal_DN).sum(axis=1)


def _breaks(data: _Data, known: _Known) -> tuple[np.ndarray, np.ndarray]:
    """Samples of where half of the seeds diverge, and of how much seeds differ there, by their verdicts.

    Each seed diverges from a value between the two that it has shown.
    """
    (middle, spread), edges = known.prior.seed_break, np.linspace(known.low, known.high, _EDGES)
    widths = middle * np.exp(spread * ndtri((np.arange(_WIDTHS) + 0.5) / _WIDTHS))
    edge_B, width_B = (its.ravel() for its in np.meshgrid(edges, widths))
    below_BK, above_BK = _break_ends(edge_B, width_B, data)
    ordered_BK = ndtr(above_BK) - ndtr(below_BK)
    each_BK = ndtr(above_BK) * ndtr(-below_BK)  # where a seed ran stably above a run that diverged
    likelihood_BK = np.where(data.high_K > data.low_K, ordered_BK, each_BK)
    log_B = np.log(likelihood_BK.clip(0) * (1 - _LAPSE) + _LAPSE).sum(axis=1)
    chosen_S = _resampled(_normalised(log_B))
    chosen_S = np.random.default_rng(1).permutation(chosen_S)  # they know nothing of the curve's
    return edge_B[chosen_S], width_B[chosen_S]


def _break_ends(edge: np.ndarray, width: np.ndarray, data: _Data) -> tuple[np.ndarray, np.ndarray]:
    """In standard deviations of seeds."""
    return (data.low_K - edge[:, None]) / width[:, None], (data.high_K - edge[:, None]) / width[:, None]


def _sampled(
    draws_SP: np.ndarray,
    data: _Data,
    known: _Known,
    x_X: np.ndarray,
    candidates: Sequence[tuple[float, int]],
    effective: float,
) -> Posterior:
    """A sample of the prior for each draw, corrected by what the runs say (Matheron's rule: Wilson et al.
    2020, arXiv 2002.09309).
    """
    luck = np.random.default_rng(0)
    count, seeds = len(draws_SP), len(data.low_K)
    x_C = np.array([x for x, _ in candidates])
    seed_C = np.array([seed for _, seed in candidates], int)
    places = np.concatenate([data.x_N, x_X, x_C])
    seen, curve = slice(len(data.x_N)), slice(len(data.x_N), len(data.x_N) + len(x_X))
    asked = slice(curve.stop, None)
    height_S, noise_S, offset_S = (np.exp(draws_SP[:, its]) for its in (HEIGHT, NOISE, OFFSET))
    shift_S, ours_S = _shift(draws_SP)

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
    at = _moments(draws_SP, places)
    whole = at.mean_DN + bends + best_S[:, None] * at.best_DN

    def of_seed(part: slice, seed: np.ndarray) -> np.ndarray:
        """A seed's own part of the curve, by its shift and offset."""
        shifted = places[part] - shift_S[:, None] * shifts_SK[:, seed]
        away = _rise_and_fall(draws_SP, shifted)[0] - at.mean_DN[:, part]
        return np.sqrt(ours_S)[:, None] * away + offset_S[:, None] * offsets_SK[:, seed]

    def of_run(part: slice) -> np.ndarray:
        away = np.einsum("q,sqn->sn", _WEIGHTS, at.away_DQN[:, :, part] ** 2)
        spread = np.sqrt((1 - ours_S)[:, None] * away + noise_S[:, None] ** 2)
        return spread * luck.standard_normal(spread.shape)

    runs_SC = whole[:, asked] + of_seed(asked, seed_C) + of_run(asked)
    if len(data.x_N):
        mine = _Moments(at.mean_DN[:, seen], at.away_DQN[:, :, seen], at.best_DN[:, seen])
        drawn_SN = whole[:, seen] + of_seed(seen, data.seed_N) + of_run(seen)
        drawn_SN += data.spread_N * luck.standard_normal(drawn_SN.shape)
        covariance_SNN = _covariance(draws_SP, mine, data, known)
        pull_SN = np.linalg.solve(covariance_SNN, (data.share_N - drawn_SN)[..., None])[..., 0]
        for index in np.unique(lengths_S):
            of_index = lengths_S == index
            pulled = pull_SN[of_index] @ kernels[index][seen]
            whole[of_index] += height_S[of_index, None] ** 2 * pulled
        best_pull_S = known.best**2 * (at.best_DN[:, seen] * pull_SN).sum(axis=1)
        change = whole - (at.mean_DN + bends + best_S[:, None] * at.best_DN)
        whole += best_pull_S[:, None] * at.best_DN
        runs_SC += change[:, asked] + best_pull_S[:, None] * at.best_DN[:, asked]
        same_NK = data.seed_N[:, None] == np.arange(seeds)
        away_SQN = at.away_DQN[:, :, seen]
        # What each shift (Q) of each seed explains of what was seen.
        explained_SQK = np.matmul(away_SQN * pull_SN[:, None], same_NK)
        weighted_SQK = ours_S[:, None, None] * _WEIGHTS[:, None] * explained_SQK
        runs_SC += np.einsum("sqc,sqc->sc", at.away_DQN[:, :, asked], weighted_SQK[:, :, seed_C])
        offset_pull_SK = offset_S[:, None] ** 2 * (pull_SN @ same_NK)
        runs_SC += offset_pull_SK[:, seed_C]
        shifts_SK = shifts_SK + np.einsum("q,sqk->sk", _NODES, weighted_SQK) / np.sqrt(ours_S)[:, None]
    break_S, width_S = _breaks(data, known)
    below_SK, above_SK = (ndtr(its) for its in _break_ends(break_S, width_S, data))
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
