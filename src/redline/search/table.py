"""The table at the end of a search."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table


def result_table(result: Mapping[str, Any], reference: str) -> Table:
    """One row a variant of a `result.json`; ratios are to the variant named ``reference``."""
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{result['search']}: largest stable learning rate", title_justify="left"
    )
    table.add_column("variant")
    for heading in ("max stable LR", "edge (90%)", "first diverged", f"ratio to {reference}", "perplexity"):
        table.add_column(heading, justify="right")
    table.add_column("rule that broke")
    for heading in ("trials", "of grid"):
        table.add_column(heading, justify="right")
    unit = result["variants"].get(reference, {}).get("max_stable_lr")
    for name, entry in result["variants"].items():
        table.add_row(name, *_cells(entry, result["ladder"], unit))
    notes = _notes(result["variants"])
    if notes:
        table.caption, table.caption_justify = "\n".join(notes), "left"
    return table


def _cells(entry: Mapping[str, Any], ladder: list[float], unit: float | None) -> list[str]:
    edge, rule = entry["max_stable_lr"], entry["first_diverged_reason"]
    if entry["censored"] == "above":
        shown, diverged = f"≥ {ladder[-1]:g}, censored", "none"
    elif entry["censored"] == "below":
        shown, diverged = f"< {ladder[0]:g}, censored", f"{ladder[0]:g}"
    else:
        shown = "open" if edge is None else f"{edge:g}" + ("*" if entry["stable_above"] else "")
        first = entry["first_diverged_lr"]
        diverged = "–" if first is None else f"{first:g}"
    interval = entry["max_stable_lr_90"]
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


def _notes(variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
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
