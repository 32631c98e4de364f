"""Results of searches, made by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist, fmean
from typing import Any

from hypothesis import strategies as st

from redline.search.result import QUANTILES, SearchResult, VariantResult

LADDER = [0.1, 0.2, 0.4, 0.8]
NATS = st.floats(2.0, 6.0)


def posterior(middle: float, spread: float = 0.2) -> tuple[float, ...]:
    """Of an edge that is normal in log LR; ``spread`` is its standard deviation there."""
    normal = NormalDist(math.log(middle), spread)
    return tuple(math.exp(normal.inv_cdf(at)) for at in QUANTILES)


def between(quantiles: Sequence[float]) -> tuple[float, float]:
    """The 90% interval of a posterior."""
    return quantiles[QUANTILES.index(0.05)], quantiles[QUANTILES.index(0.95)]


def entry(rung: int | None, losses: dict[str, float] | None = None, **others: Any) -> VariantResult:
    """A variant whose useful edge is a quarter above that rung of the ladder, its stable one at 1.5.

    Rung -1: censored below; 3: censored above; None: open.
    """
    censored = {-1: "below", len(LADDER) - 1: "above"}.get(rung)
    known = rung is not None and not censored
    useful = posterior(LADDER[rung] * 1.25) if known else ()
    losses = losses or {}
    loss = fmean(losses.values()) if known and losses else None
    its = VariantResult(
        max_useful_lr=LADDER[rung] * 1.25 if known else None,
        max_useful_lr_90=between(useful) if known else None,
        max_useful_rung=LADDER[rung] if known else None,
        max_stable_lr=1.5,
        max_stable_lr_90=between(posterior(1.5)),
        max_stable_rung=0.8,
        censored=censored,
        useful_quantiles=useful,
        stable_quantiles=posterior(1.5),
        first_diverged_lr=None,
        first_diverged_reason=None,
        val_loss=loss,
        val_losses=losses if known else {},
        val_perplexity=None if loss is None else math.exp(loss),
        best_lr=0.1,
        best_val_loss=min(losses.values(), default=None),
        trials=4,
        optimizer_steps=400,
        grid_steps=len(LADDER) * 3 * 100,
        open=(0.2,) if rung is None else (),
    )
    return replace(its, **others)


def old_entry(low: float, high: float, **others: Any) -> VariantResult:
    """As one is read from a result of version 1."""
    unknown = {
        "max_useful_lr": None,
        "useful_quantiles": (),
        "max_stable_lr": None,
        "max_stable_lr_90": None,
        "max_stable_rung": None,
        "stable_quantiles": (),
    }
    return entry(1, **{**unknown, "max_useful_lr_90": (low, high), "version": 1, **others})


def result(**variants: VariantResult) -> SearchResult:
    return SearchResult("s", tuple(LADDER), 3, variants)


@st.composite
def entries(draw: st.DrawFn) -> VariantResult:
    """Any entry that a search can write."""
    seeds = draw(st.lists(st.sampled_from("0123"), max_size=3, unique=True))
    rung = draw(st.none() | st.integers(-1, len(LADDER) - 1))
    its = entry(rung, {seed: draw(NATS) for seed in seeds})
    if its.max_useful_lr is None:
        return its
    useful = posterior(its.max_useful_lr, draw(st.floats(0.02, 1.0)))
    stable = posterior(draw(st.floats(0.2, 5.0)), draw(st.floats(0.02, 1.0)))
    return replace(
        its,
        max_useful_lr_90=between(useful),
        useful_quantiles=useful,
        max_stable_lr=stable[len(stable) // 2],
        max_stable_lr_90=between(stable),
        stable_quantiles=stable,
    )


RESULTS = st.dictionaries(st.sampled_from(["baseline", "qk", "qkv"]), entries(), min_size=1).map(
    lambda variants: result(**variants)
)
