"""What all figures share: colours that colour-blind readers can tell apart, and one meaning for each."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from redline.report.search import Run, Search, Variant

# Okabe and Ito's, checked for the common kinds of colour blindness.
STABLE = "#0072B2"
DIVERGED = "#D55E00"
CUT = "#E69F00"
EDGE = "#009E73"  # the useful one
STABLE_EDGE = "#CC79A7"
OTHERS = "#B5B5B5"
TEXT = "#333333"
SCALE = "viridis"  # of ordered quantities: layers, norms

_WIDTH, _HEIGHT = 10.9, 2.75  # inches of a row of variants' panels

styled = rc_context(fname=Path(__file__).with_name("report.mplstyle"))  # a decorator of what draws a figure


def draw_lines(axes: Axes, lines: Mapping[str, pd.Series], variant: str) -> None:
    """A line a variant, over its values of what was searched: all but this panel's own in grey."""
    for name, line in lines.items():
        colour, width, above = (TEXT, 1.1, 1.6) if name == variant else (OTHERS, 0.9, 1.5)
        axes.plot(line.index, line, color=colour, linewidth=width, zorder=above)


def draw_run(axes: Axes, run: Run, height: float, *, hollow: bool) -> None:
    """The marker of a finished run, over its value of what was searched."""
    axes.plot(run.value, height, **_marker(run.verdict, hollow), alpha=0.9, zorder=3)


def run_key(verdict: str, label: str, *, hollow: bool = False) -> Line2D:
    """A run's marker in the legend."""
    return Line2D([], [], label=label, **_marker(verdict, hollow))


def _marker(verdict: str, hollow: bool) -> dict[str, Any]:
    marker, colour = {"stable": ("o", STABLE), "diverged": ("X", DIVERGED), "cut": ("v", CUT)}[verdict]
    face = "white" if hollow else colour
    return {"marker": marker, "color": colour, "mfc": face, "ms": 6.5, "mew": 1.0, "linestyle": "none"}


def line_key(
    label: str, colour: str = TEXT, style: Literal["-", ":", "--"] = "-", width: float = 0.9
) -> Line2D:
    """A line in the legend."""
    return Line2D([], [], color=colour, linestyle=style, linewidth=width, label=label)


def legend(figure: Figure, handles: Sequence[Artist], columns: int) -> None:
    """Below the panels, at the figure's foot."""
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def log_axis(axis: Axis) -> None:
    """Decades only, as plain text: formulas and minor ticks take most of a figure's time."""
    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def plain(text: str, width: int = 44) -> str:
    """Text that matplotlib draws as it is: a pair of dollars would be a formula. Broken into lines."""
    return "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")


def describe(run: Run, search: Search) -> str:
    """A run in a few words, as in ``LR 0.3: diverged by blow_up at step 69``."""
    name = f"{search.label} {run.value:g}" + (f", seed {run.seed}" if search.seeds > 1 else "")
    return f"{name}: {fate(run)}"


def fate(run: Run) -> str:
    """How a run ended, as in ``cut at step 120``."""
    by = f" by {run.reason}" if run.reason else ""
    return run.verdict + (f"{by} at step {run.step}" if run.verdict in ("diverged", "cut") else "")


def variant_panels(search: Search, y_label: str) -> tuple[Figure, list[Axes]]:
    """A figure with a panel a variant, over what was searched, on the same axes; each with its edges marked.

    No canvas of pyplot's: a figure is gone with its last reference.
    """
    count = len(search.variants)
    columns = min(count, 2 if count in (1, 2, 4) else 3)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(_WIDTH if count > 1 else 7.0, rows * _HEIGHT + 0.9))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    every = list(grid.flat)
    for axes, variant in zip(every, search.variants, strict=False):
        axes.set_title(plain(_title(variant), 60))
        _mark_edge(axes, variant)
    _ladder_axis(every[0], search.ladder)
    for index, unused in enumerate(every[count:], start=count):
        unused.set_axis_off()
        every[index - columns].xaxis.set_tick_params(labelbottom=True)
    searched = f"peak {search.searched}" if search.key == "lr" else search.searched
    for axes in every[max(0, count - columns) : count]:
        axes.set_xlabel(f"{searched} (log scale)")
    for axes in grid[:, 0]:
        axes.set_ylabel(y_label)
    return figure, every[:count]


def _title(variant: Variant) -> str:
    """The variant's name and its edges in words."""
    its = variant.result
    if its is None:
        ends = [
            "?" if end is None else f"{end:g}" for end in (variant.largest_stable, variant.first_diverged)
        ]
        return f"{variant.name}: so far stable to {ends[0]}, diverged from {ends[1]}"
    useful = _edge_in_words(variant.edge, its.censored)
    stable = _edge_in_words(its.max_stable_lr, its.stable_censored)
    return f"{variant.name}: useful to {useful}, stable to {stable}"


def _edge_in_words(edge: float | None, censored: str | None) -> str:
    if censored is not None:
        return {"above": "the top", "below": "below the ladder"}[censored]
    return "?" if edge is None else f"{edge:.3g}"


def _mark_edge(axes: Axes, variant: Variant) -> None:
    """Each edge as a line, the interval that holds it as a band."""
    if variant.result is None:
        return
    its = variant.result
    for edge, interval, colour, style in (
        (variant.edge, its.max_useful_lr_90, EDGE, "-"),
        (its.max_stable_lr, its.max_stable_lr_90, STABLE_EDGE, "--"),
    ):
        if interval is not None:
            axes.axvspan(*interval, color=colour, alpha=0.12, linewidth=0)
        if edge is not None and math.isfinite(edge):
            axes.axvline(edge, color=colour, linewidth=1.4, linestyle=style)


def edge_keys(label: str) -> list[Artist]:
    """Both edges in the legend."""
    return [
        line_key(f"largest useful {label}", EDGE, width=1.4),
        line_key(f"largest stable {label}", STABLE_EDGE, "--", width=1.4),
        Patch(color=TEXT, alpha=0.12, label="holds the edge with 90%"),
    ]


def _ladder_axis(axes: Axes, ladder: Sequence[float]) -> None:
    """A logarithmic axis over the whole ladder, its rungs as small ticks."""
    axes.set_xscale("log")
    low, high = ladder[0], ladder[-1]
    axes.set_xlim(low / 1.3, high * 1.3)
    decades = high / low
    subs = (1.0, 2.0, 5.0) if decades <= 30 else (1.0, 3.0) if decades <= 3000 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(FixedLocator(list(ladder)))
    axes.xaxis.set_minor_formatter(NullFormatter())
