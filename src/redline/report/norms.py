"""Output norms of a run's layers, and which of them grew first."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from redline.report.search import Curve, Run, Search

SITES = ("qkv", "proj", "fc1", "fc2")
Norms = Mapping[str, Mapping[int, Curve]]  # site -> layer -> L2 norm of its output, mean over tokens

_NAME = re.compile(rf"norm/({'|'.join(SITES)})/layer_(\d+)")


def output_norms(run: Run | None) -> Norms:
    """What was logged of them; empty where nothing was."""
    found: dict[str, dict[int, Curve]] = {}
    for metric in sorted(run.metrics) if run is not None else ():
        name = _NAME.fullmatch(metric)
        if name is not None and run is not None:
            found.setdefault(name[1], {})[int(name[2])] = run.history(metric)
    return {site: found[site] for site in SITES if site in found}


def pair_norms(search: Search, variant: str) -> list[tuple[Run, Norms]]:
    """The variant's run at the edge and the one just above it, as far as their norms were logged.

    Raises KeyError for an unknown variant, ValueError where none were.
    """
    runs = [run for run in search.variant(variant).pair if run is not None]
    norms = [(run, its) for run in runs if (its := output_norms(run))]
    if not norms:
        raise ValueError(f"{variant}: no output norms were logged")
    return norms


@dataclass(frozen=True)
class Growth:
    site: str
    layer: int
    step: int
    ratio: float  # to the stable run's norm; infinite where the norm was no finite number


def first_growth(stable: Norms, diverged: Norms, factor: float) -> Growth | None:
    """Which layer's output norm first exceeded ``factor`` times that of the stable run at the same step.

    Steps are those that both runs logged. A norm that is no finite number exceeds everything; one that the
    stable run has none for, or zero, is not compared. Of several at one step the largest ratio is given. None
    where no norm grew so far, which rules other than `non_finite` and `blow_up` may well leave so.
    """
    found = []
    for site, layers in diverged.items():
        for layer, curve in layers.items():
            reference = stable.get(site, {}).get(layer)
            if reference is None:
                continue
            steps, ours, theirs = np.intersect1d(curve.steps, reference.steps, return_indices=True)
            values, norms = curve.values[ours], reference.values[theirs]
            comparable = np.isfinite(norms) & (norms > 0)
            ratio = np.zeros(len(steps))
            np.divide(values, norms, out=ratio, where=comparable & np.isfinite(values))
            ratio[comparable & ~np.isfinite(values)] = np.inf
            above = np.flatnonzero(ratio > factor)
            if above.size:
                found.append(Growth(site, layer, int(steps[above[0]]), float(ratio[above[0]])))
    return min(found, key=lambda growth: (growth.step, -growth.ratio), default=None)
