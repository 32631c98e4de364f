"""Perplexities beside the paper's."""

import math
from statistics import fmean

from redline.report.blocks import DASH, Section, Source, Table, number
from redline.report.literature import literature
from redline.report.search import Search, Variant
from redline.report.sensitivity import common_lrs

ORDER = 80

_BASELINE = "baseline"


def section(search: Search, reference: str) -> Section:
    paper = literature().rybakov
    reading = (
        f"Perplexity is exp of the mean loss. The paper's are at LR {paper.lr:g}, its first diverging LR on "
        f"the ladder {', '.join(f'{lr:g}' for lr in paper.ladder)}, of {paper.model}. That is another model, "
        "text and budget: compare the order of the variants and the change against the baseline, never the "
        "numbers themselves."
    )
    gentle = min(common_lrs(search), default=None)
    ours = {variant.name: perplexity_at(variant, gentle) for variant in search.variants}
    at_gentle = "at an LR that all ran" if gentle is None else f"at LR {gentle:g}"
    headings = (
        "variant",
        "at its largest stable LR",
        "at its best LR",
        at_gentle,
        "against baseline",
        f"paper: at LR {paper.lr:g}",
        "paper: against baseline",
        "ours: first diverged",
        "paper: first diverged",
    )
    rows = [
        [
            variant.name,
            number(None if variant.entry is None else variant.entry["val_perplexity"], ".2f"),
            _best(variant),
            number(ours[variant.name], ".2f"),
            _against(ours[variant.name], ours.get(_BASELINE)),
            number(_of_paper(variant, paper.perplexity), ".2f"),
            _against(_of_paper(variant, paper.perplexity), paper.perplexity[_BASELINE]),
            number(variant.first_diverged_lr, "g"),
            number(_of_paper(variant, paper.first_diverged_lr), "g"),
        ]
        for variant in search.variants
    ]
    note = f"{DASH}: not measured, not reported, or of a variant that is not in the paper."
    table = Table("perplexity", headings, rows, ("variant",), [note])
    return Section(
        "perplexity", "Perplexity, beside the paper's", reading, [table, Source(paper.source, paper.url)]
    )


def perplexity_at(variant: Variant, lr: float | None) -> float | None:
    """exp of the mean over seeds of the validation loss at ``lr``; None where no run has one."""
    runs = [] if lr is None else variant.by_lr().get(lr, [])
    losses = [run.val_loss for run in runs if run.has_loss and run.val_loss is not None]
    return math.exp(fmean(losses)) if losses else None


def _best(variant: Variant) -> str:
    found = [(its, lr) for lr in variant.by_lr() if (its := perplexity_at(variant, lr)) is not None]
    if not found:
        return DASH
    perplexity, lr = min(found)
    return f"{perplexity:.2f} (LR {lr:g})"


def _of_paper(variant: Variant, figures: dict[str, float]) -> float | None:
    """Only for the paper's own variant: a further key that the search varied makes it another."""
    return figures.get(variant.norm) if variant.name == variant.norm else None


def _against(perplexity: float | None, baseline: float | None) -> str:
    return DASH if perplexity is None or baseline is None else f"{perplexity / baseline - 1:+.1%}"
