"""What all figures share: colours that colour-blind readers can tell apart, and one meaning for each."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from redline.report.search import Run

# Okabe and Ito's, checked for the common kinds of colour blindness.
STABLE = "#0072B2"
DIVERGED = "#D55E00"
EDGE = "#009E73"
OTHERS = "#B5B5B5"
TEXT = "#333333"
SCALE = "viridis"  # of ordered quantities: layers, norms

MARKERS = {"stable": "o", "diverged": "X"}
COLOURS = {"stable": STABLE, "diverged": DIVERGED}
SIZE = 8.5  # points, of text


class Frame(NamedTuple):
    """Room around a figure's panels and between them, in inches."""

    left: float = 0.75
    right: float = 0.15
    top: float = 0.3
    bottom: float = 0.5
    beside: float = 0.5
    between: float = 0.4


def panels(
    rows: int, columns: int, width: float, height: float, frame: Frame, **shared: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, columns) panels, each of ``width`` times ``height`` inches.

    Measured out by hand, as matplotlib's own layout takes longer than all the drawing. No canvas of pyplot's:
    a figure is gone with its last reference.
    """
    full_width = frame.left + columns * width + (columns - 1) * frame.beside + frame.right
    full_height = frame.bottom + rows * height + (rows - 1) * frame.between + frame.top
    figure = Figure(figsize=(full_width, full_height))
    figure.subplots_adjust(
        left=frame.left / full_width,
        right=1 - frame.right / full_width,
        bottom=frame.bottom / full_height,
        top=1 - frame.top / full_height,
        wspace=frame.beside / width,
        hspace=frame.between / height,
    )
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def headline(figure: Figure, frame: Frame, text: str) -> None:
    """Above the panels; a frame's ``top`` leaves room for it."""
    width, height = figure.get_size_inches()
    place = (frame.left / width, 1 - 0.08 / height)
    figure.text(*place, plain(text, 100), fontsize=SIZE + 2, fontweight="bold", color=TEXT, va="top")


def legend(figure: Figure, handles: Sequence[Artist], columns: int) -> None:
    """Below the panels, at the figure's foot."""
    figure.legend(handles=handles, loc="lower center", ncols=columns, fontsize=SIZE - 0.5, frameon=False)


def log_axis(axis: Axis) -> None:
    """Decades only, as plain text: formulas and minor ticks take most of a figure's time."""
    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def plain(text: str, width: int = 44) -> str:
    """Text that matplotlib draws as it is: a pair of dollars would be a formula. Broken into lines."""
    return "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")


def describe(run: Run, seeds: int) -> str:
    """A run in a few words, as in ``LR 0.3, diverged by degraded at step 219``."""
    name = f"LR {run.lr:g}" + (f", seed {run.seed}" if seeds > 1 else "")
    return f"{name}: {run.verdict}" + (f" by {run.reason} at step {run.step}" if run.reason else "")


def quiet(axes: Axes) -> None:
    """Less ink than matplotlib's default."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SIZE - 0.5, colors=TEXT)
    axes.grid(True, color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)


def lr_axis(axes: Axes, ladder: Sequence[float]) -> None:
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
