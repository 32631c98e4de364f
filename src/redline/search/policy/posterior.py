"""How sure an edge is: its posterior, given every run's verdict.

A run diverges with the probability of a logistic in log LR, whose middle is the edge (the LR at which half of
all seeds diverge) and whose width says how much seeds differ. Prior: the edge's log is uniform over the
ladder and one ladder's gap beyond either end; the width's log is uniform from a tenth of the ladder's median
gap to the whole gap. The posterior is summed on a grid.
"""

from collections.abc import Iterable, Sequence

import numpy as np

_EDGES, _WIDTHS = 400, 24  # points of the grid
_NARROWEST = 0.1  # of a gap


def edge_interval(
    votes: Iterable[tuple[float, bool]], ladder: Sequence[float], probability: float = 0.9
) -> tuple[float, float]:
    """The central interval, in LR, that holds the edge with ``probability``. ``votes``: LR, diverged."""
    edges, mass = _posterior(votes, ladder)
    cumulated = np.cumsum(mass)
    tail = (1 - probability) / 2
    low, high = (float(edges[np.searchsorted(cumulated, share)]) for share in (tail, 1 - tail))
    return float(f"{np.exp(low):.3g}"), float(f"{np.exp(high):.3g}")


def edge_prior(ladder: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The grid: logs of edges, widths in log LR. Every pair is as likely as any other."""
    rungs = np.log(np.asarray(ladder))
    gap = float(np.median(np.diff(rungs)))
    edges = np.linspace(rungs[0] - gap, rungs[-1] + gap, _EDGES)
    return edges, gap * np.geomspace(_NARROWEST, 1.0, _WIDTHS)


def _posterior(votes: Iterable[tuple[float, bool]], ladder: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    edges_E, widths_W = edge_prior(ladder)
    log_mass_EW = np.zeros((_EDGES, _WIDTHS))
    for lr, diverged in votes:
        above_EW = (np.log(lr) - edges_E[:, None]) / widths_W
        # log of the logistic at -x is -log(1 + e^x)
        log_mass_EW -= np.logaddexp(0, -above_EW if diverged else above_EW)
    mass_E = np.exp(log_mass_EW - log_mass_EW.max()).sum(axis=1)
    return edges_E, mass_E / mass_E.sum()
