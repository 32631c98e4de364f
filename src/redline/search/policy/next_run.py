"""Which run narrows the edges most for what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Target:
    """What is to be narrowed: an edge in samples (S), and what each candidate's run would show of it."""

    edge_S: np.ndarray
    shown_SC: np.ndarray


def ranked(
    targets: Sequence[Target], cost_C: np.ndarray, pending: Sequence[int], count: int
) -> list[tuple[int, float]]:
    """The best ``count`` candidates, each chosen as if those before it were running too, and by which share
    each narrows the edges' variance.

    The variance that is left is that of a linear regression of the edge on what the run would show.
    ``pending``: the candidates that run already. ``cost_C``: as a share of a full run.
    """
    left = [(_centred(_winsorized(its.edge_S)), _centred(its.shown_SC)) for its in targets]
    for index in pending:
        left = [_without(edge_S, shown_SC, index) for edge_S, shown_SC in left]
    asked = np.ones(len(cost_C), bool)
    asked[list(pending)] = False
    found: list[tuple[int, float]] = []
    while asked.any() and len(found) < count:
        narrowed_TC = np.array([_explained(edge_S, shown_SC) for edge_S, shown_SC in left])
        worth_C = -np.log1p(-np.minimum(narrowed_TC, 0.999)).sum(axis=0) / cost_C
        index = int(np.argmax(np.where(asked, worth_C, -1)))
        found.append((index, float(narrowed_TC[:, index].max())))
        asked[index] = False
        left = [_without(edge_S, shown_SC, index) for edge_S, shown_SC in left]
    return found


def _winsorized(edge_S: np.ndarray) -> np.ndarray:
    """Without the tails, which are outside the interval that is to be narrowed."""
    return np.clip(edge_S, *np.quantile(edge_S, [0.03, 0.97]))


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=0)


def _explained(edge_S: np.ndarray, shown_SC: np.ndarray) -> np.ndarray:
    """The share of the edge's variance that each candidate explains."""
    whole_C = (shown_SC**2).sum(axis=0) * (edge_S**2).sum()
    return np.where(whole_C > 1e-12, (edge_S @ shown_SC) ** 2 / np.maximum(whole_C, 1e-12), 0.0)


def _without(edge_S: np.ndarray, shown_SC: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """What is left to explain once this candidate's run has ended."""
    shown_S = shown_SC[:, index]
    square = float(shown_S @ shown_S)
    if square < 1e-12:
        return edge_S, shown_SC
    return (
        edge_S - shown_S * (shown_S @ edge_S) / square,
        shown_SC - np.outer(shown_S, shown_S @ shown_SC / square),
    )
