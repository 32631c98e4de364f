"""How many times a variant's edges are those of another one, from samples of both."""

from collections.abc import Collection
from functools import cache

import numpy as np

from redline.search.policy.answer import Edge, stable_edge, useful_edge
from redline.search.policy.state import SearchState
from redline.search.result import Ratio

_PAIRINGS = 25  # of the samples of two variants
_CORRELATIONS = (0.0, 0.3, 0.6, 0.85)  # of a seed's shifts in two variants, each as likely as another
_DIGITS = 3

# Of one edge, in the order of `Ratio`: the ratio, its interval, the chances that it exceeds 1 and the claim.
_Numbers = tuple[float | None, tuple[float, float] | None, float | None, float | None]


def edge_ratio(
    its: SearchState, unit: SearchState, *, to: str, claim: float | None, paired: bool = True
) -> Ratio:
    """The edges of ``its`` over those of ``unit``, the variant named ``to``. ``paired``: seeds of one number
    are the same in both, and what shifts a seed's curve in one may shift it in the other.
    """
    first, second = _pairs(len(its.useful_S))
    seeds = {point.seed for point in its.outcomes} & {point.seed for point in unit.outcomes} if paired else ()
    weights = _weights(its.its.shifts_SK[first], unit.its.shifts_SK[second], seeds)
    useful = _numbers(useful_edge(its), useful_edge(unit), weights, claim)
    stable = _numbers(stable_edge(its), stable_edge(unit), np.ones(len(first)), claim)
    return Ratio(to, *useful, *stable)


@cache
def _pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of samples of two variants; the same pairs the other way round are among them, so that the
    ratio of two variants is one over the ratio of the second to the first.
    """
    luck = np.random.default_rng(0)
    partners = []
    for _ in range(_PAIRINGS):
        order, partner = luck.permutation(count), np.arange(count)
        half = count // 2
        partner[order[:half]], partner[order[half : 2 * half]] = order[half : 2 * half], order[:half]
        partners.append(partner)
    return np.tile(np.arange(count), _PAIRINGS), np.concatenate(partners)


def _weights(first_PK: np.ndarray, second_PK: np.ndarray, seeds: Collection[int]) -> np.ndarray:
    """How much likelier each pair (P) is than if a seed's (K) shifts in two variants were independent."""
    columns = sorted(seeds)
    a, b = first_PK[:, columns], second_PK[:, columns]
    likelihoods = []
    for r in _CORRELATIONS:
        rest = 1 - r**2
        log_PK = -0.5 * np.log(rest) - (r**2 * (a**2 + b**2) - 2 * r * a * b) / (2 * rest)
        likelihoods.append(np.exp(log_PK.sum(axis=1)))
    return np.mean(likelihoods, axis=0)


def _numbers(first: Edge, second: Edge, weights: np.ndarray, claim: float | None) -> _Numbers:
    if first.log_S is None or second.log_S is None:
        return None, None, None, None
    one, other = _pairs(len(first.log_S))
    log_P = first.log_S[one] - second.log_S[other]
    order = np.argsort(log_P, kind="stable")
    share = np.cumsum(weights[order]) - weights[order] / 2
    low, middle, high = np.exp(np.interp([0.05, 0.5, 0.95], share / weights.sum(), log_P[order]))

    def chance(ratio: float) -> float:
        return float(weights[log_P > np.log(ratio)].sum() / weights.sum())

    claimed = None if claim is None else _rounded(chance(claim))
    return _rounded(middle), (_rounded(low), _rounded(high)), _rounded(chance(1.0)), claimed


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
