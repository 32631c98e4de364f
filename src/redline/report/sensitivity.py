"""LR sensitivity of a search's variants, and the rungs that it was computed on."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean

from redline.report.search import Run, Search, Variant
from redline.stability.sensitivity import lr_sensitivity


@dataclass(frozen=True)
class Sensitivity:
    """In nats; ``own`` is on every rung that the variant ran, ``common`` on those that all variants ran.

    None where fewer than two rungs leave nothing to compare.
    """

    variant: str
    own: float | None
    own_lrs: tuple[float, ...]
    common: float | None


def common_lrs(search: Search) -> tuple[float, ...]:
    """The rungs on which every variant has a finished run."""
    ran = [set(variant.by_lr()) for variant in search.variants]
    return tuple(sorted(set.intersection(*ran))) if ran else ()


def sensitivities(search: Search) -> list[Sensitivity]:
    shared = common_lrs(search)
    return [
        Sensitivity(variant.name, _on(variant, own), own, _on(variant, shared))
        for variant in search.variants
        for own in [tuple(variant.by_lr())]
    ]


def _on(variant: Variant, lrs: Collection[float]) -> float | None:
    """`lr_sensitivity` of the mean over seeds at each rung, each capped at the loss at initialisation."""
    initial = [run.initial_loss for run in variant.finished_runs if _finite(run.initial_loss)]
    if len(lrs) < 2 or not initial:
        return None
    start = fmean(loss for loss in initial if loss is not None)
    by_lr = variant.by_lr()
    return lr_sensitivity([_mean_loss(by_lr[lr], start) for lr in lrs], start)


def _mean_loss(runs: Sequence[Run], initial_loss: float) -> float:
    """A seed without a finite loss counts as one that learned nothing."""
    losses = [run.val_loss if run.has_loss and run.val_loss is not None else initial_loss for run in runs]
    return fmean(min(loss, initial_loss) for loss in losses)


def _finite(loss: float | None) -> bool:
    return loss is not None and math.isfinite(loss)
