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
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from redline.report.search import Run, Search, Variant

# Okabe and Ito's, checked for the common kinds of colour blindness.
STABLE = "#0072B2"
DIVERGED = "#D55E00"
EDGE = "#009E73"
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
    marker, colour = {"stable": ("o", STABLE), "diverged": ("X", DIVERGED)}[verdict]
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
    """A run in a few words, as in ``LR 0.3: diverged by degraded at step 219``."""
    name = f"{search.label} {run.value:g}" + (f", seed {run.seed}" if search.seeds > 1 else "")
    return f"{name}: {run.verdict}" + (f" by {run.reason} at step {run.step}" if run.reason else "")


def variant_panels(search: Search, y_label: str) -> tuple[Figure, list[Axes]]:
    """A figure with a panel a variant, over what was searched, on the same axes; each with its edge marked.

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
    """The variant's name and its edge in words."""
    result, stable, diverged = variant.result, variant.max_stable_lr, variant.first_diverged_lr
    if result is None:
        ends = ["?" if end is None else f"{end:g}" for end in (stable, diverged)]
        return f"{variant.name}: edge so far between {ends[0]} and {ends[1]}"
    if result.censored is not None:
        return f"{variant.name}: edge {result.censored} the ladder"
    return f"{variant.name}: edge " + ("left open" if stable is None else f"at {stable:g}")


def _mark_edge(axes: Axes, variant: Variant) -> None:
    """The largest stable value as a line, the interval that holds the edge as a band."""
    if variant.result is not None and variant.result.max_useful_lr_90 is not None:
        axes.axvspan(*variant.result.max_useful_lr_90, color=EDGE, alpha=0.12, linewidth=0)
    if variant.max_stable_lr is not None:
        axes.axvline(variant.max_stable_lr, color=EDGE, linewidth=1.4)


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
