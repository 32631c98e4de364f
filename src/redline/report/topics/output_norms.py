"""Output norms of a run's layers: which grew first, their curves, and where and when they blew up."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from redline.metrics import NORM, layer_of, of_layer
from redline.report.blocks import RYBAKOV, Picture, Section
from redline.report.search import Run, Search, Variant
from redline.report.style import DIVERGED, SCALE, TEXT, describe, fate, log_axis, plain, styled

SITES = ("qkv", "proj", "fc1", "fc2")
# In Rybakov et al., a diverging run's output norms exceed this many times a converging one's.
GROWTH = 2.0  # `readings.html.j2` says it too
_ABOVE = 1e300  # every scale


def sections(search: Search, reference: str) -> Iterator[Section]:
    """Where no norms were logged, a transformer's report says so, and any other's says nothing of norms."""
    if not search.in_nats and not any(map(_has_norms, search.variants)):
        return
    sentences = [growth_sentence(variant, search.label) for variant in search.variants]
    yield Section("growth", "What grew first", sentences, RYBAKOV)
    shows = "output norms over steps, of the run below the edge and of the one above it"
    curves = _pictures(search, norm_curves, shows)
    yield Section("norm_curves", "Output norms: below and above the edge", curves)
    heatmaps = _pictures(search, norm_heatmap, "output norms as a heatmap, layer by step")
    yield Section("norm_heatmap", "Which layer, and when", heatmaps)


def _has_norms(variant: Variant) -> bool:
    return any(not output_norms(run).empty for run in variant.pair)


def _pictures(search: Search, draw: Callable[[Search, str], Figure], shows: str) -> list[str | Picture]:
    """One a variant; their files' names are distinct, whatever characters the variants' have."""
    blocks: list[str | Picture] = []
    for index, variant in enumerate(search.variants):
        if _has_norms(variant):
            safe = re.sub(r"[^A-Za-z0-9.=_-]+", "_", variant.name)[:60]
            file = f"{draw.__name__}_{index:02d}_{safe}"
            blocks.append(Picture(file, f"{variant.name}: {shows}", partial(draw, search, variant.name)))
        else:
            blocks.append(f"{variant.name}: no output norms to show. {search.curves.trouble or ''}")
    return blocks


def output_norms(run: Run | None) -> pd.DataFrame:
    """L2 norms of outputs, mean over tokens: a row a step, a column a (site, layer); empty without any.

    A reading that was no finite number is infinite; NaN is a step without one.
    """
    if run is None:
        return pd.DataFrame()
    logged = filter(None, map(layer_of, run.tracked.metrics))
    columns = [(site, layer) for statistic, site, layer in logged if statistic == NORM and site in SITES]
    columns.sort(key=lambda its: (SITES.index(its[0]), its[1]))
    curves = {its: run.history(of_layer(NORM, *its)).fillna(math.inf) for its in columns}
    return pd.DataFrame(curves).sort_index()


def pair_norms(search: Search, variant: str) -> list[tuple[Run, pd.DataFrame]]:
    """The variant's run at the edge and the one just above it, as far as their norms were logged.

    Raises KeyError for an unknown variant, ValueError where none were.
    """
    runs = [run for run in search.variant(variant).pair if run is not None]
    norms = [(run, its) for run in runs if not (its := output_norms(run)).empty]
    if not norms:
        raise ValueError(f"{variant}: no output norms were logged")
    return norms


@dataclass(frozen=True)
class Growth:
    site: str
    layer: int
    step: int
    ratio: float  # to the useful run's norm; infinite where the norm was no finite number


def first_growth(useful: pd.DataFrame, above: pd.DataFrame, factor: float) -> Growth | None:
    """Which layer's output norm first exceeded ``factor`` times that of the useful run at the same step.

    Steps are those that both runs logged. A norm that is no finite number exceeds everything; one that the
    useful run has none for, or zero, is not compared. Of several at one step the largest ratio is given. None
    where no norm grew so far, which a run that is lost without diverging may well leave so.
    """
    reference = useful.reindex_like(above)
    ratios = above / reference[(reference > 0) & (reference < math.inf)]
    grown = ratios[(ratios > factor).any(axis="columns")]
    if grown.empty:
        return None
    first = grown.iloc[0]
    site, layer = first.idxmax()
    return Growth(site, layer, first.name, first.max())


def growth_sentence(variant: Variant, label: str, factor: float = GROWTH) -> str:
    """What `first_growth` finds of a variant, or why it finds nothing."""
    useful, above = variant.pair
    if useful is None or above is None:
        missing = "useful run" if useful is None else "run above the edge"
        return f"{variant.name}: there is no {missing} to compare with."
    norms = output_norms(useful), output_norms(above)
    values = f"{label} {above.value:g}, {fate(above)}, against {useful.value:g}"
    if any(its.empty for its in norms):
        return f"{variant.name}: no output norms were logged ({values})."
    found = first_growth(*norms, factor)
    if found is None:
        none = f"no layer's output exceeded {factor:g} times the useful run's"
        return f"{variant.name}: {none} ({values})."
    size = f"{found.ratio:.1f} times the useful run's" if math.isfinite(found.ratio) else "no finite number"
    return (
        f"{variant.name}: {found.site} of layer {found.layer} grew first. At step {found.step} its norm was "
        f"{size} ({values})."
    )


@styled
def norm_curves(search: Search, variant: str) -> Figure:
    """A line a layer; the useful run in the upper row, the one above the edge in the lower; shared axes.

    Raises KeyError for an unknown variant, ValueError where no norms were logged.
    """
    norms = pair_norms(search, variant)
    figure, by_site = _norm_panels(search, variant, norms, "L2 norm", sharey="col")
    deepest = max(max(its.columns.get_level_values(1)) for _, its in norms)
    colours = ScalarMappable(Normalize(0, max(deepest, 1)), colormaps[SCALE])
    for site, column in by_site.items():
        for axes, (_, its) in zip(column, norms, strict=True):
            _draw_curves(axes, its.get(site, pd.DataFrame()), colours)
        log_axis(column[0].yaxis)
    figure.colorbar(
        colours,
        ax=figure.axes,
        label="layer (0: nearest the input)",
        ticks=MaxNLocator(integer=True),
        shrink=0.8,
        aspect=30,
    )
    return figure


@styled
def norm_heatmap(search: Search, variant: str) -> Figure:
    """Layer by step; the useful run in the upper row, the one above the edge in the lower; shared colours.

    Norms that are no finite number have a colour of their own. Raises KeyError for an unknown variant,
    ValueError where no norms were logged.
    """
    norms = pair_norms(search, variant)
    figure, by_site = _norm_panels(search, variant, norms, "layer", sharey=True)
    last = max(its.index.max() for _, its in norms)
    for site, column in by_site.items():
        layers = [its.get(site, pd.DataFrame()) for _, its in norms]
        scale = _colour_range(layers)
        for axes, (run, _), its in zip(column, norms, layers, strict=True):
            if not its.empty:
                drawn = _draw_heatmap(axes, its, scale)
            axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
            axes.set_facecolor("#F4F4F4")
            axes.grid(visible=False)
            axes.set_xlim(0, max(last, run.step or 0) * 1.03 + 1)
        bar = figure.colorbar(
            drawn, ax=column, location="bottom", extend="min", label="L2 norm (log scale)", aspect=26
        )
        log_axis(bar.ax.xaxis)
    return figure


def _norm_panels(
    search: Search,
    variant: str,
    norms: Sequence[tuple[Run, pd.DataFrame]],
    y_label: str,
    sharey: bool | Literal["col"],
) -> tuple[Figure, dict[str, list[Axes]]]:
    """A figure with a column a site and a row a run; site -> its panels. A divergence is a dashed line."""
    sites = [site for site in SITES if any(site in its for _, its in norms)]
    figure = Figure(figsize=(1.5 + 2.6 * len(sites), 1.2 + 1.7 * len(norms)))
    grid = figure.subplots(len(norms), len(sites), squeeze=False, sharex=True, sharey=sharey)
    for row, (run, _) in zip(grid, norms, strict=True):
        words = plain(describe(run, search), 24)
        row[0].set_ylabel(f"{words}\n\n{y_label}", color=DIVERGED if run.reason else TEXT)
        for axes in row:
            if run.reason and run.step is not None:
                axes.axvline(run.step, color=DIVERGED, linewidth=1.4, linestyle="--")
    for site, top, bottom in zip(sites, grid[0], grid[-1], strict=True):
        top.set_title(f"output of {site}")
        bottom.set_xlabel("step")
    figure.suptitle(plain(variant, 100), x=0.01, horizontalalignment="left")
    return figure, {site: list(column) for site, column in zip(sites, grid.T, strict=True)}


def _draw_curves(axes: Axes, layers: pd.DataFrame, colours: ScalarMappable) -> None:
    """Lines break where a norm is no finite number; a triangle at the top marks the step."""
    for layer in layers:
        curve = layers[layer].dropna()
        colour = colours.to_rgba(np.array(layer))
        drawable = curve.where((curve > 0) & (curve < math.inf))
        axes.plot(curve.index, drawable, color=colour, linewidth=1.1)
        odd = curve.index[curve == math.inf]
        if not odd.empty:
            heights = np.full(odd.size, 0.97)
            place = axes.get_xaxis_transform()
            axes.plot(odd, heights, "^", color=DIVERGED, markersize=4, transform=place, clip_on=False)
    axes.set_yscale("log")


def _draw_heatmap(axes: Axes, layers: pd.DataFrame, scale: LogNorm) -> QuadMesh:
    """Infinite norms lie above the scale, but not at infinity, which matplotlib would not draw."""
    image = layers.dropna(how="all").reindex(columns=range(max(layers) + 1)).replace(math.inf, _ABOVE)
    steps = image.index
    width = np.diff(steps).min() if steps.size > 1 else 1
    edges = np.append(steps, steps[-1] + width)
    colours = colormaps[SCALE].with_extremes(over=DIVERGED)
    return axes.pcolormesh(edges, np.arange(image.shape[1] + 1) - 0.5, image.T, cmap=colours, norm=scale)


def _colour_range(norms: Sequence[pd.DataFrame]) -> LogNorm:
    """From the fifth percentile up: the first steps' tiny norms would take up most of the colours."""
    values = np.concatenate([its.to_numpy().ravel() for its in norms])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (np.quantile(values, 0.05), values.max()) if values.size else (1.0, 10.0)
    return LogNorm(low, max(high, low * 1.01))
