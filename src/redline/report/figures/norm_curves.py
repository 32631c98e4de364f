"""Output norms over steps: the run at the edge beside the one just above it."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from redline.report.figures.style import (
    DIVERGED,
    SCALE,
    SIZE,
    TEXT,
    Frame,
    describe,
    headline,
    log_axis,
    panels,
    plain,
    quiet,
)
from redline.report.norms import SITES, Norms, pair_norms
from redline.report.search import Search


def norm_curves(search: Search, variant: str) -> Figure:
    """A column a site, a line a layer; the stable run above, the diverged one below, on the same axes.

    Raises KeyError for an unknown variant, ValueError where no norms were logged.
    """
    norms = pair_norms(search, variant)
    sites = [site for site in SITES if any(site in its for _, its in norms)]
    layers = sorted({layer for _, its in norms for curves in its.values() for layer in curves})
    frame = Frame(left=1.25, top=0.65, right=0.85, bottom=0.5, beside=0.55, between=0.18)
    figure, grid = panels(len(norms), len(sites), 2.2, 1.7, frame, sharex=True, sharey="col")
    colours = ScalarMappable(Normalize(0, max(layers[-1], 1)), colormaps[SCALE])
    for row, (run, its) in zip(grid, norms, strict=True):
        for axes, site in zip(row, sites, strict=True):
            quiet(axes)
            _draw(axes, site, its, colours)
            if run.reason and run.step is not None:
                axes.axvline(run.step, color=DIVERGED, linewidth=1.2, linestyle="--")
        words = plain(describe(run, search.seeds), 26)
        row[0].set_ylabel(f"{words}\n\nL2 norm", fontsize=SIZE, color=DIVERGED if run.reason else TEXT)
    for axes, site in zip(grid[0], sites, strict=True):
        axes.set_title(f"output of {site}", fontsize=SIZE + 1, loc="left", y=1.02, color=TEXT)
        log_axis(axes.yaxis)
    for axes in grid[-1]:
        axes.set_xlabel("step", fontsize=SIZE, color=TEXT)
    _layer_scale(figure, colours)
    headline(figure, frame, variant)
    return figure


def _layer_scale(figure: Figure, colours: ScalarMappable) -> None:
    width = figure.get_figwidth()
    bar = figure.colorbar(colours, cax=figure.add_axes((1 - 0.65 / width, 0.2, 0.1 / width, 0.6)))
    bar.set_label("layer (0: nearest the input)", fontsize=SIZE, color=TEXT)
    bar.ax.tick_params(labelsize=SIZE - 1)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))


def _draw(axes: Axes, site: str, norms: Norms, colours: ScalarMappable) -> None:
    """Lines break where a norm is no finite number; a triangle at the top marks the step."""
    for layer, curve in norms.get(site, {}).items():
        colour = colours.to_rgba(np.array(layer))
        drawable = curve.is_finite & (curve.values > 0)
        axes.plot(curve.steps, np.where(drawable, curve.values, np.nan), color=colour, linewidth=1.1)
        odd = curve.steps[~curve.is_finite]
        if odd.size:
            heights = np.full(odd.size, 0.97)
            place = axes.get_xaxis_transform()
            axes.plot(odd, heights, "^", color=DIVERGED, markersize=4, transform=place, clip_on=False)
    axes.set_yscale("log")
