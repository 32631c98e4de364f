"""Output norms as a picture, layer by step: where and when they blow up."""

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
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
)
from redline.report.norms import SITES, pair_norms
from redline.report.search import Curve, Run, Search


def norm_heatmap(search: Search, variant: str) -> Figure:
    """A column a site; the stable run above, the diverged one below, in the same colours.

    The step of divergence is a dashed line; norms that are no finite number have a colour of their own.
    Raises KeyError for an unknown variant, ValueError where no norms were logged.
    """
    norms = pair_norms(search, variant)
    sites = [site for site in SITES if any(site in its for _, its in norms)]
    last = max(int(c.steps[-1]) for _, its in norms for layers in its.values() for c in layers.values())
    frame = Frame(left=1.25, top=0.65, bottom=1.1, beside=0.2, between=0.15)
    figure, grid = panels(len(norms), len(sites), 2.6, 1.4, frame, sharex=True, sharey=True)
    for index, site in enumerate(sites):
        column = [its.get(site, {}) for _, its in norms]
        scale = _scale([curve for layers in column for curve in layers.values()])
        drawn = None
        for axes, (run, _), layers in zip(grid[:, index], norms, column, strict=True):
            if layers:
                drawn = _draw(axes, layers, scale)
            _mark(axes, run, last)
        grid[0, index].set_title(f"output of {site}", fontsize=SIZE + 1, loc="left", y=1.02, color=TEXT)
        if drawn is not None:
            _norm_scale(figure, drawn, grid[-1, index])
    for row, (run, _) in zip(grid, norms, strict=True):
        words = plain(describe(run, search.seeds), 22)
        row[0].set_ylabel(f"{words}\n\nlayer", fontsize=SIZE - 0.5, color=DIVERGED if run.reason else TEXT)
    headline(figure, frame, variant)
    for axes in grid[-1]:
        axes.set_xlabel("step", fontsize=SIZE, color=TEXT)
    return figure


def _norm_scale(figure: Figure, drawn: QuadMesh, above: Axes) -> None:
    """A bar below a column."""
    place = above.get_position()
    height = figure.get_figheight()
    axes = figure.add_axes((place.x0, 0.42 / height, place.width, 0.1 / height))
    bar = figure.colorbar(drawn, cax=axes, orientation="horizontal", extend="min")
    bar.ax.tick_params(labelsize=SIZE - 1)
    log_axis(bar.ax.xaxis)
    bar.set_label("L2 norm (log scale)", fontsize=SIZE - 0.5, color=TEXT)


def _scale(curves: list[Curve]) -> LogNorm:
    """From the fifth percentile up: the first steps' tiny norms would take up most of the colours."""
    values = np.concatenate([curve.values for curve in curves]) if curves else np.array([])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (np.quantile(values, 0.05), values.max()) if values.size else (1.0, 10.0)
    return LogNorm(low, max(high, low * 1.01))


def _draw(axes: Axes, layers: Mapping[int, Curve], scale: LogNorm) -> QuadMesh:
    steps = np.unique(np.concatenate([curve.steps for curve in layers.values()]))
    image = np.full((max(layers) + 1, steps.size), np.nan)
    for layer, curve in layers.items():
        # NaN is a step without a reading; a reading that is no finite number lies above the scale.
        image[layer, np.searchsorted(steps, curve.steps)] = np.where(curve.is_finite, curve.values, np.inf)
    colours = colormaps[SCALE].with_extremes(over=DIVERGED)
    width = np.diff(steps).min() if steps.size > 1 else 1
    edges = np.append(steps, steps[-1] + width)
    shown = np.ma.masked_where(np.isnan(image), image)
    return axes.pcolormesh(edges, np.arange(image.shape[0] + 1) - 0.5, shown, cmap=colours, norm=scale)


def _mark(axes: Axes, run: Run, last: int) -> None:
    axes.tick_params(labelsize=SIZE - 1, colors=TEXT)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.set_facecolor("#F4F4F4")
    axes.set_xlim(0, max(last, run.step or 0) * 1.03 + 1)
    if run.reason and run.step is not None:
        axes.axvline(run.step, color=DIVERGED, linewidth=1.6, linestyle="--")
