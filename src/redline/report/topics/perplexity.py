"""Perplexities, and beside them those of the paper whose variants were searched."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from redline.report.blocks import DASH, RYBAKOV, Section, Table, number
from redline.report.search import Search, Variant
from redline.report.topics.lr_sensitivity import common_values

# Rybakov et al.: 830M parameters (24 blocks, width 1024), one seed; perplexities +-0.1.
PAPER_LR = 3e-4  # of the perplexities
PAPER_PERPLEXITY = {
    "baseline": 11.19,
    "soft_cap": 11.24,
    "qk": 10.84,
    "qkv": 10.85,
    "qk_fc": 10.87,
    "qk_cap": 11.00,
}
PAPER_FIRST_DIVERGED = {
    "baseline": 8e-3,
    "soft_temp": 20e-3,
    "soft_clip": 20e-3,
    "sigma_reparam": 40e-3,
    "layer_scale": 40e-3,
    "soft_cap": 60e-3,
    "qk": 60e-3,
    "qk_fc": 60e-3,
    "qkv": 80e-3,
    "qk_cap": 80e-3,  # some texts say that it did not diverge
}


def sections(search: Search, reference: str) -> Iterator[Section]:
    """Nothing where what was trained is no language model."""
    if not search.in_nats:
        return
    columns = _columns(search, reference)
    title, note, source = "Perplexity", f"{DASH}: not measured.", None
    if search.key == "lr" and any(its.name in PAPER_FIRST_DIVERGED for its in search.variants):
        columns |= _paper_columns(search, reference)
        title += ", beside the paper's"
        note = f"{DASH}: not measured, not reported, or of a variant that is not in the paper."
        source = RYBAKOV
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    table = Table("perplexity", list(columns), rows, ("variant",), [note])
    yield Section("perplexity", title, [table], source)


def _columns(search: Search, reference: str) -> dict[str, list[str]]:
    """Heading -> its cells, a variant each."""
    gentle = min(common_values(search), default=None)
    ours = {variant.name: _perplexities(variant) for variant in search.variants}
    there = {name: its.get(gentle) for name, its in ours.items()}
    label, at_edge = search.label, {name: its.val_perplexity for name, its in search.result.variants.items()}
    return {
        "variant": list(ours),
        "at its largest useful rung": [number(at_edge.get(name), ".2f") for name in ours],
        f"at its best {label}": [_best(its, label) for its in ours.values()],
        f"at a {label} that all ran" if gentle is None else f"at {label} {gentle:g}": [
            number(its, ".2f") for its in there.values()
        ],
        f"against {reference}": [_against(its, there.get(reference)) for its in there.values()],
    }


def _paper_columns(search: Search, reference: str) -> dict[str, list[str]]:
    """Filled for the paper's own variants: a further key that the search varied makes a variant another."""
    names = [variant.name for variant in search.variants]
    theirs = [PAPER_PERPLEXITY.get(name) for name in names]
    return {
        f"paper: at LR {PAPER_LR:g}": [number(its, ".2f") for its in theirs],
        f"paper: against {reference}": [_against(its, PAPER_PERPLEXITY.get(reference)) for its in theirs],
        "ours: first diverged": [number(variant.first_diverged, "g") for variant in search.variants],
        "paper: first diverged": [number(PAPER_FIRST_DIVERGED.get(name), "g") for name in names],
    }


def _perplexities(variant: Variant) -> pd.Series:
    """Value -> exp of the mean over seeds of the validation loss, where a run has one."""
    return np.exp(variant.losses.groupby(level=0).mean().dropna())


def _best(ours: pd.Series, label: str) -> str:
    return DASH if ours.empty else f"{ours.min():.2f} ({label} {ours.idxmin():g})"


def _against(perplexity: float | None, reference: float | None) -> str:
    return DASH if perplexity is None or reference is None else f"{perplexity / reference - 1:+.1%}"
