"""The table at the end of a search."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from redline.search.result import SearchResult

HEADINGS = (
    "variant",
    "max stable LR",
    "edge (90%)",
    "first diverged",
    "ratio to {reference}",
    "perplexity",
    "rule that broke",
    "trials",
    "of grid",
)
WORDS = ("variant", "rule that broke")  # the other columns are numbers


def result_table(result: SearchResult, reference: str) -> Table:
    """One row a variant of a `result.json`; ratios are to the variant named ``reference``."""
    entries = {name: its.to_dict() for name, its in result.variants.items()}
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{result.search}: largest stable learning rate", title_justify="left"
    )
    for heading in HEADINGS:
        words = heading in WORDS
        table.add_column(heading.format(reference=reference), justify="left" if words else "right")
    for row in rows(entries, result.ladder, reference):
        table.add_row(*row)
    notes = result_notes(entries)
    if notes:
        table.caption, table.caption_justify = "\n".join(notes), "left"
    return table


def rows(
    variants: Mapping[str, Mapping[str, Any]], ladder: Sequence[float], reference: str
) -> list[list[str]]:
    """The cells under `HEADINGS`, a row a variant."""
    unit = variants.get(reference, {}).get("max_stable_lr")
    return [[name, *_cells(entry, ladder, unit)] for name, entry in variants.items()]


def _cells(entry: Mapping[str, Any], ladder: Sequence[float], unit: float | None) -> list[str]:
    edge, rule = entry["max_stable_lr"], entry["first_diverged_reason"]
    if entry["censored"] == "above":
        shown, diverged = f"≥ {ladder[-1]:g}, censored", "none"
    elif entry["censored"] == "below":
        shown, diverged = f"< {ladder[0]:g}, censored", f"{ladder[0]:g}"
    else:
        shown = "open" if edge is None else f"{edge:g}" + ("*" if entry["stable_above"] else "")
        first = entry["first_diverged_lr"]
        diverged = "–" if first is None else f"{first:g}"
    interval = entry.get("max_stable_lr_90")
    return [
        shown,
        "–" if interval is None else f"{interval[0]:.2g}–{interval[1]:.2g}",
        diverged,
        "–" if edge is None or unit is None else f"{edge / unit:.2f}",
        "–" if entry["val_perplexity"] is None else f"{entry['val_perplexity']:.2f}",
        f"{rule} at {entry['first_diverged_step']}" if rule else "–",
        str(entry["trials"]),
        f"{entry['optimizer_steps'] / entry['grid_steps']:.0%}",
    ]


def result_notes(variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the table's cells are too small for."""
    notes = []
    for name, entry in variants.items():
        if entry["stable_above"]:
            lrs = ", ".join(f"{lr:g}" for lr in entry["stable_above"])
            notes.append(f"* {name}: not monotone, stable again at {lrs}; the edge is the first divergence.")
        if entry["censored"] == "above":
            notes.append(f"{name}: no LR of the ladder diverged; the edge lies higher.")
        if entry["censored"] == "below" and entry["first_diverged_reason"] == "no_learning":
            notes.append(f"{name}: the smallest LR learned nothing: it may be too small for so few steps.")
        elif entry["censored"] == "below":
            notes.append(f"{name}: the smallest LR of the ladder diverged; the edge lies lower.")
        if entry["open"]:
            lrs = ", ".join(f"{lr:g}" for lr in entry["open"])
            notes.append(f"{name}: runs at {lrs} crashed too often and were left open.")
    return notes
