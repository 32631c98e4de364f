"""The table at the end of a search."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from redline.search.result import SearchResult, VariantResult, spelled_out

WORDS = ("variant", "rule that broke")  # the other columns are numbers


def result_table(result: SearchResult, reference: str) -> Table:
    """One row a variant; ratios are to the variant named ``reference``."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{result.search}: largest stable {spelled_out(result.label)}",
        title_justify="left",
    )
    for heading in result_headings(result, reference):
        table.add_column(heading, justify="left" if heading in WORDS else "right")
    for row in result_rows(result, reference):
        table.add_row(*row)
    notes = result_notes(result)
    if notes:
        table.caption, table.caption_justify = "\n".join(notes), "left"
    return table


def result_headings(result: SearchResult, reference: str) -> list[str]:
    return [
        "variant",
        f"max stable {result.label}",
        "edge (90%)",
        "first diverged",
        *([f"ratio to {reference}"] if reference in result.variants else []),
        "perplexity" if result.in_nats else "final score",
        "rule that broke",
        "trials",
        "of grid",
    ]


def result_rows(result: SearchResult, reference: str) -> list[list[str]]:
    """The cells under `result_headings`, a row a variant."""
    return [[name, *_cells(its, result, reference)] for name, its in result.variants.items()]


def result_notes(result: SearchResult) -> list[str]:
    """What the table's cells are too small for."""
    return [note for name, its in result.variants.items() for note in _notes(name, its, result.label)]


def _cells(its: VariantResult, result: SearchResult, reference: str) -> list[str]:
    edge, ladder, interval = its.max_useful_lr, result.ladder, its.max_useful_lr_90
    rule, step = its.first_diverged_reason, its.first_diverged_step
    if its.censored == "above":
        shown, diverged = f"≥ {ladder[-1]:g}, censored", "none"
    elif its.censored == "below":
        shown, diverged = f"< {ladder[0]:g}, censored", f"{ladder[0]:g}"
    else:
        shown = "open" if edge is None else f"{edge:g}"
        diverged = _number(its.first_diverged_lr, "g")
    return [
        shown,
        "–" if interval is None else f"{interval[0]:.2g}–{interval[1]:.2g}",
        diverged,
        *([_ratio(edge, result.variants[reference].max_useful_lr)] if reference in result.variants else []),
        _number(its.val_perplexity, ".2f") if result.in_nats else _number(its.val_loss, ".4g"),
        "–" if rule is None else rule if step is None else f"{rule} at {step}",
        str(its.trials),
        f"{its.optimizer_steps / its.grid_steps:.0%}" if its.grid_steps else "–",
    ]


def _ratio(edge: float | None, unit: float | None) -> str:
    return "–" if edge is None or unit is None else f"{edge / unit:.2f}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def _notes(name: str, its: VariantResult, label: str) -> Iterator[str]:
    if its.censored == "above":
        yield f"{name}: no {label} of the ladder diverged; the edge lies higher."
    elif its.censored == "below" and its.first_diverged_reason == "no_learning":
        yield f"{name}: the smallest {label} learned nothing: it may be too small for so few steps."
    elif its.censored == "below":
        yield f"{name}: the smallest {label} of the ladder diverged; the edge lies lower."
    if its.open:
        yield f"{name}: runs at {_listed(its.open)} crashed too often and were left open."


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
