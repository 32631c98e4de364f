"""One panel a variant, all on the same axes: how variants are set beside each other over LR."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from redline.report.figures.style import EDGE, SIZE, TEXT, Frame, lr_axis, panels, plain, quiet
from redline.report.search import Search, Variant

_WIDTH, _HEIGHT = 3.2, 2.3  # inches of a panel
_LEGEND = 0.55  # inches


def lr_panels(search: Search, y_label: str) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, in the order of the search's variants, each with its edge marked.

    There is room for a legend at its foot.
    """
    count = len(search.variants)
    columns = min(count, 2 if count in (1, 2, 4) else 3)
    rows = math.ceil(count / columns)
    width = 1.9 * _WIDTH if count == 1 else _WIDTH * 3 / columns
    frame = Frame(bottom=0.5 + _LEGEND, beside=0.2, between=0.45)
    figure, grid = panels(rows, columns, width, _HEIGHT, frame, sharex=True, sharey=True)
    every = list(grid.flat)
    for axes, variant in zip(every, search.variants, strict=False):
        quiet(axes)
        axes.set_title(plain(title(variant), 60), fontsize=SIZE + 1, loc="left", y=1.02, color=TEXT)
        _mark_edge(axes, variant)
    lr_axis(every[0], search.ladder)
    for index, unused in enumerate(every[count:], start=count):
        unused.set_axis_off()
        every[index - columns].xaxis.set_tick_params(labelbottom=True)
    for axes in every[max(0, count - columns) : count]:
        axes.set_xlabel("peak learning rate (log scale)", fontsize=SIZE, color=TEXT)
    for axes in grid[:, 0]:
        axes.set_ylabel(y_label, fontsize=SIZE, color=TEXT)
    return figure, every[:count]


def title(variant: Variant) -> str:
    """The variant's name and its edge in words."""
    entry, stable, diverged = variant.entry, variant.max_stable_lr, variant.first_diverged_lr
    if entry is not None and entry["censored"] is not None:
        where = "above the ladder" if entry["censored"] == "above" else "below the ladder"
        return f"{variant.name}: edge {where}"
    if entry is None:
        ends = ["?" if end is None else f"{end:g}" for end in (stable, diverged)]
        return f"{variant.name}: edge so far between {ends[0]} and {ends[1]}"
    return f"{variant.name}: edge " + ("left open" if stable is None else f"at {stable:g}")


def _mark_edge(axes: Axes, variant: Variant) -> None:
    """The largest stable LR as a line, the interval that holds the edge as a band."""
    interval = variant.entry and variant.entry.get("max_stable_lr_90")
    if interval:
        axes.axvspan(*interval, color=EDGE, alpha=0.12, linewidth=0)
    if variant.max_stable_lr is not None:
        axes.axvline(variant.max_stable_lr, color=EDGE, linewidth=1.4)
