"""Results of searches, made by hand."""

import math
from dataclasses import replace
from statistics import fmean
from typing import Any

from hypothesis import strategies as st

from redline.search.result import SearchResult, VariantResult

LADDER = [0.1, 0.2, 0.4, 0.8]
NATS = st.floats(2.0, 6.0)


def entry(rung: int | None, losses: dict[str, float] | None = None, **others: Any) -> VariantResult:
    """A variant whose edge is that rung of the ladder: -1 none is stable, 3 all are, None open."""
    censored = {-1: "below", len(LADDER) - 1: "above"}.get(rung)
    edge = None if censored or rung is None else LADDER[rung]
    losses = losses or {}
    loss = fmean(losses.values()) if edge is not None and losses else None
    its = VariantResult(
        max_stable_lr=edge,
        max_stable_lr_90=None if edge is None else (edge * 0.9, edge * 2.2),
        first_diverged_lr=None if rung in (None, len(LADDER) - 1) else LADDER[rung + 1],
        first_diverged_reason=None,
        censored=censored,
        val_loss=loss,
        val_losses=losses if edge is not None else {},
        val_perplexity=None if loss is None else math.exp(loss),
        best_lr=0.1,
        best_val_loss=min(losses.values(), default=None),
        trials=4,
        optimizer_steps=400,
        grid_steps=len(LADDER) * 3 * 100,
    )
    return replace(its, **others)


def result(**variants: VariantResult) -> SearchResult:
    return SearchResult("s", tuple(LADDER), 3, variants)


@st.composite
def entries(draw: st.DrawFn) -> VariantResult:
    """Any entry that a search can write."""
    seeds = draw(st.lists(st.sampled_from("0123"), max_size=3, unique=True))
    rung = draw(st.none() | st.integers(-1, len(LADDER) - 1))
    its = entry(rung, {seed: draw(NATS) for seed in seeds})
    if its.max_stable_lr is None:
        return its
    low = draw(st.floats(0.05, its.max_stable_lr))
    return replace(its, max_stable_lr_90=(low, draw(st.floats(its.max_stable_lr, 1.6))))


RESULTS = st.dictionaries(st.sampled_from(["baseline", "qk", "qkv"]), entries(), min_size=1).map(
    lambda variants: result(**variants)
)
