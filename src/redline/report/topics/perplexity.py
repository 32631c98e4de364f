"""Perplexities, and beside them those of the paper whose variants were searched."""

import math
from statistics import fmean

from redline.report.blocks import DASH, RYBAKOV, Block, Section, Table, number
from redline.report.search import Search, Variant, finite
from redline.report.topics.lr_sensitivity import common_values

# Rybakov et al.: 830M parameters (24 blocks, width 1024), one seed; perplexities +-0.1.
PAPER_LR = 3e-4  # of the perplexities
PAPER_LADDER = (6e-3, 8e-3, 20e-3, 40e-3, 60e-3, 80e-3)
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

_PAPER_READING = (
    f" The paper's are at LR {PAPER_LR:g}, its first diverging LR on the ladder "
    f"{', '.join(f'{lr:g}' for lr in PAPER_LADDER)}, of 830M parameters (24 blocks, width 1024), one seed. "
    "That is another model, text and budget: compare the order of the variants and the change against "
    "{reference}, never the numbers themselves."
)


def section(search: Search, reference: str) -> Section | None:
    """None where what was trained is no language model."""
    if not search.in_nats:
        return None
    columns = _columns(search, reference)
    of_paper = search.key == "lr" and any(its.name in PAPER_FIRST_DIVERGED for its in search.variants)
    title, reading, note = "Perplexity", "Perplexity is exp of the mean loss.", f"{DASH}: not measured."
    sources: list[Block] = []
    if of_paper:
        columns |= _paper_columns(search, reference)
        title += ", beside the paper's"
        reading += _PAPER_READING.format(reference=reference)
        note = f"{DASH}: not measured, not reported, or of a variant that is not in the paper."
        sources = [RYBAKOV]
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    table = Table("perplexity", list(columns), rows, ("variant",), [note])
    return Section("perplexity", title, reading, [table, *sources])


def _columns(search: Search, reference: str) -> dict[str, list[str]]:
    """Heading -> its cells, a variant each."""
    gentle = min(common_values(search), default=None)
    ours = {variant.name: perplexity_at(variant, gentle) for variant in search.variants}
    label, at_edge = search.label, {name: its.val_perplexity for name, its in search.result.variants.items()}
    return {
        "variant": list(ours),
        f"at its largest stable {label}": [number(at_edge.get(name), ".2f") for name in ours],
        f"at its best {label}": [_best(variant, label) for variant in search.variants],
        f"at a {label} that all ran" if gentle is None else f"at {label} {gentle:g}": [
            number(its, ".2f") for its in ours.values()
        ],
        f"against {reference}": [_against(its, ours.get(reference)) for its in ours.values()],
    }


def _paper_columns(search: Search, reference: str) -> dict[str, list[str]]:
    """Filled for the paper's own variants: a further key that the search varied makes a variant another."""
    names = [variant.name for variant in search.variants]
    theirs = [PAPER_PERPLEXITY.get(name) for name in names]
    return {
        f"paper: at LR {PAPER_LR:g}": [number(its, ".2f") for its in theirs],
        f"paper: against {reference}": [_against(its, PAPER_PERPLEXITY.get(reference)) for its in theirs],
        "ours: first diverged": [number(variant.first_diverged_lr, "g") for variant in search.variants],
        "paper: first diverged": [number(PAPER_FIRST_DIVERGED.get(name), "g") for name in names],
    }


def perplexity_at(variant: Variant, value: float | None) -> float | None:
    """exp of the mean over seeds of the validation loss at ``value``; None where no run has one."""
    runs = [] if value is None else variant.by_value().get(value, [])
    losses = finite(run.val_loss for run in runs)
    return math.exp(fmean(losses)) if losses else None


def _best(variant: Variant, label: str) -> str:
    found = [
        (its, value) for value in variant.by_value() if (its := perplexity_at(variant, value)) is not None
    ]
    if not found:
        return DASH
    perplexity, value = min(found)
    return f"{perplexity:.2f} ({label} {value:g})"


def _against(perplexity: float | None, reference: float | None) -> str:
    return DASH if perplexity is None or reference is None else f"{perplexity / reference - 1:+.1%}"
