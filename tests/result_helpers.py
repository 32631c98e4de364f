"""Results made by hand."""

import math
from typing import Any

from redline.search.result import SearchResult, VariantResult

LADDER = (0.1, 0.2, 0.4, 0.8)
# A variant as version 1 wrote it.
OLD_VARIANT: dict[str, Any] = {
    "max_stable_lr": 0.2,
    "first_diverged_lr": 0.4,
    "censored": None,
    "first_diverged_reason": "degraded",
    "val_loss": 4.05,
    "best_lr": 0.1,
    "best_val_loss": 4.0,
    "trials": 4,
    "optimizer_steps": 400,
    "grid_steps": 1200,
    "first_diverged_step": 99,
    "max_stable_lr_90": [0.19, 0.42],
    "val_losses": {"0": 4.0, "1": 4.1},
    "val_perplexity": 57.4,
    "short_runs": 2,
    "stable_above": [],
    "open": [],
    "max_steps": 100,
    "parameters": 1000,
    "tokens_per_step": 512,
    "precision": "fp32",
}
# A search of one variant as version 1 wrote it.
OLD: dict[str, Any] = {
    "version": 1,
    "search": "s",
    "ladder": list(LADDER),
    "seeds": 2,
    "variants": {"qk": OLD_VARIANT},
    "key": "lr",
    "label": "LR",
}


def made_variant(useful: float | None = 0.5, stable: float | None = 2.0, **changed: Any) -> VariantResult:
    """A variant with these edges, each known to within a quarter."""
    known: dict[str, Any] = {
        "max_useful_lr": useful,
        "max_useful_lr_90": None if useful is None else (useful * 0.8, useful * 1.25),
        "max_useful_rung": max((rung for rung in LADDER if rung < (useful or 0)), default=None),
        "max_stable_lr": stable,
        "max_stable_lr_90": None if stable is None else (stable * 0.8, stable * 1.25),
        "max_stable_rung": max((rung for rung in LADDER if rung < (stable or 0)), default=None),
        "censored": None,
        "first_diverged_lr": 3.0,
        "first_diverged_reason": "blow_up",
        "first_diverged_step": 5,
        "val_loss": 3.8,
        "val_perplexity": math.exp(3.8),
        "best_lr": 0.2,
        "best_val_loss": 3.7,
        "trials": 6,
        "optimizer_steps": 50,
        "grid_steps": 200,
        "stopped": "resolution",
    }
    return VariantResult(**{**known, **changed})


def made_search(seeds: int = 2, **variants: VariantResult) -> SearchResult:
    return SearchResult("s", LADDER, seeds, variants)
