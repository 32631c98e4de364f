"""Output norms of a run's layers: which grew first, their curves, and where and when they blew up."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from redline.metrics import NORM, layer_of
from redline.report.blocks import RYBAKOV, Block, Picture, Section, Text
from redline.report.search import Curve, Run, Search, Variant
from redline.report.style import (
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

SITES = ("qkv", "proj", "fc1", "fc2")
GROWTH = 2.0  # in Rybakov et al., a diverging run's output norms exceed this many times a converging one's
_ABOVE = 1e300  # every scale
Norms = Mapping[str, Mapping[int, Curve]]  # site -> layer -> L2 norm of its output, mean over tokens

_GROWTH_READING = (
    f"The first output of a linear layer whose L2 norm (mean over tokens) exceeds {GROWTH:g} times that of "
    "the stable run at the same step: the run just above the edge against the one at it. It says where to "
    "look, not what caused what: the two differ in {label} from the first step on."
)
_CURVES_READING = (
    "L2 norm of the output of each block's four linear layers over training, a line a layer. Above, the run "
    "at the largest stable {label}; below, on the same axes, the one just above the edge, with the step at "
    "which it was judged diverged as a dashed line. Lines that fan out or climb in the lower row only are "
    "what broke. A triangle at the top marks a reading that was infinite or NaN."
)
_HEATMAP_READING = (
    "The same norms, layer by step: bright is large, and a column's colours are the same above (stable) and "
    "below (diverged). The dashed line is the step of the divergence; where the rule is judged only at a "
    "run's end, as degraded and no_learning are, that is the last step. Orange cells were infinite or NaN, "
    "grey is after the end."
)


def growth_section(search: Search, reference: str) -> Section | None:
    if not _applies(search):
        return None
    sentences = [Text(growth_sentence(variant, search.label)) for variant in search.variants]
    reading = _GROWTH_READING.format(label=search.label)
    return Section("growth", "What grew first", reading, [*sentences, RYBAKOV])


def curves_section(search: Search, reference: str) -> Section | None:
    if not _applies(search):
        return None
    blocks = _pictures(search, norm_curves, "output norms over steps, of a stable and of a diverged run")
    reading = _CURVES_READING.format(label=search.label)
    return Section("norm_curves", "Output norms: stable beside diverged", reading, blocks)


def heatmap_section(search: Search, reference: str) -> Section | None:
    if not _applies(search):
        return None
    blocks = _pictures(search, norm_heatmap, "output norms as a heatmap, layer by step")
    return Section("norm_heatmap", "Which layer, and when", _HEATMAP_READING, blocks)


def _applies(search: Search) -> bool:
    """Where no norms were logged, a transformer's report says so, and any other's says nothing of norms."""
    return search.in_nats or any(map(_has_norms, search.variants))


def _has_norms(variant: Variant) -> bool:
    return any(output_norms(run) for run in variant.pair)


def _pictures(search: Search, draw: Callable[[Search, str], Figure], shows: str) -> list[Block]:
    """One a variant; their files' names are distinct, whatever characters the variants' have."""
    blocks: list[Block] = []
    for index, variant in enumerate(search.variants):
        if _has_norms(variant):
            safe = re.sub(r"[^A-Za-z0-9.=_-]+", "_", variant.name)[:60]
            file = f"{draw.__name__}_{index:02d}_{safe}"
            blocks.append(Picture(file, f"{variant.name}: {shows}", partial(draw, search, variant.name)))
        else:
            blocks.append(Text(f"{variant.name}: no output norms to show. {search.curves.trouble or ''}"))
    return blocks


def output_norms(run: Run | None) -> Norms:
    """What was logged of them; empty where nothing was."""
    found: dict[str, dict[int, Curve]] = {site: {} for site in SITES}
    if run is None:
        return {}
    for metric in sorted(run.metrics):
        statistic, site, layer = layer_of(metric) or ("", "", 0)
        if statistic == NORM and site in found:
            found[site][layer] = run.history(metric)
    return {site: layers for site, layers in found.items() if layers}


def pair_norms(search: Search, variant: str) -> list[tuple[Run, Norms]]:
    """The variant's run at the edge and the one just above it, as far as their norms were logged.

    Raises KeyError for an unknown variant, ValueError where none were.
    """
    runs = [run for run in search.variant(variant).pair if run is not None]
    norms = [(run, its) for run in runs if (its := output_norms(run))]
    if not norms:
        raise ValueError(f"{variant}: no output norms were logged")
    return norms


@dataclass(frozen=True)
class Growth:
    site: str
    layer: int
    step: int
    ratio: float  # to the stable run's norm; infinite where the norm was no finite number


def first_growth(stable: Norms, diverged: Norms, factor: float) -> Growth | None:
    """Which layer's output norm first exceeded ``factor`` times that of the stable run at the same step.

    Steps are those that both runs logged. A norm that is no finite number exceeds everything; one that the
    stable run has none for, or zero, is not compared. Of several at one step the largest ratio is given. None
    where no norm grew so far, which rules other than `non_finite` and `blow_up` may well leave so.
    """
    found = []
    for site, layers in diverged.items():
        for layer, curve in layers.items():
            reference = stable.get(site, {}).get(layer)
            if reference is None:
                continue
            steps, ours, theirs = np.intersect1d(curve.steps, reference.steps, return_indices=True)
            values, norms = curve.values[ours], reference.values[theirs]
            comparable = np.isfinite(norms) & (norms > 0)
            ratio = np.zeros(len(steps))
            np.divide(values, norms, out=ratio, where=comparable & np.isfinite(values))
            ratio[comparable & ~np.isfinite(values)] = np.inf
            above = np.flatnonzero(ratio > factor)
            if above.size:
                found.append(Growth(site, layer, int(steps[above[0]]), float(ratio[above[0]])))
    return min(found, key=lambda growth: (growth.step, -growth.ratio), default=None)


def growth_sentence(variant: Variant, label: str, factor: float = GROWTH) -> str:
    """What `first_growth` finds of a variant, or why it finds nothing."""
    stable, diverged = variant.pair
    if stable is None or diverged is None:
        missing = "stable" if stable is None else "diverged"
        return f"{variant.name}: there is no {missing} run to compare with."
    norms = output_norms(stable), output_norms(diverged)
    values = f"{label} {diverged.value:g} against {stable.value:g}"
    if not all(norms):
        return f"{variant.name}: no output norms were logged ({values})."
    ended = f"it was judged diverged by {diverged.reason} at step {diverged.step}"
    found = first_growth(*norms, factor)
    if found is None:
        none = f"no layer's output exceeded {factor:g} times the stable run's"
        return f"{variant.name}: {none} ({values}; {ended})."
    size = f"{found.ratio:.1f} times the stable run's" if math.isfinite(found.ratio) else "no finite number"
    return (
        f"{variant.name}: {found.site} of layer {found.layer} grew first. At step {found.step} its norm was "
        f"{size} ({values}; {ended})."
    )


def norm_curves(search: Search, variant: str) -> Figure:
    """A line a layer; the stable run above, the diverged one below, on the same axes.

    Raises KeyError for an unknown variant, ValueError where no norms were logged.
    """
    norms = pair_norms(search, variant)
    frame = Frame(left=1.25, top=0.65, right=0.85, bottom=0.5, beside=0.55, between=0.18)
    figure, by_site = _norm_panels(search, variant, norms, (2.2, 1.7), frame, "L2 norm", sharey="col")
    deepest = max(layer for _, its in norms for curves in its.values() for layer in curves)
    colours = ScalarMappable(Normalize(0, max(deepest, 1)), colormaps[SCALE])
    for site, column in by_site.items():
        for axes, (_, its) in zip(column, norms, strict=True):
            quiet(axes)
            _draw_curves(axes, its.get(site, {}), colours)
        log_axis(column[0].yaxis)
    width = figure.get_figwidth()
    bar = figure.colorbar(colours, cax=figure.add_axes((1 - 0.65 / width, 0.2, 0.1 / width, 0.6)))
    bar.set_label("layer (0: nearest the input)", fontsize=SIZE, color=TEXT)
    bar.ax.tick_params(labelsize=SIZE - 1)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def norm_heatmap(search: Search, variant: str) -> Figure:
    """Layer by step; the stable run above, the diverged one below, in the same colours.

    Norms that are no finite number have a colour of their own. Raises KeyError for an unknown variant,
    ValueError where no norms were logged.
    """
    norms = pair_norms(search, variant)
    frame = Frame(left=1.25, top=0.65, bottom=1.1, beside=0.2, between=0.15)
    figure, by_site = _norm_panels(search, variant, norms, (2.6, 1.4), frame, "layer", sharey=True)
    last = max(int(c.steps[-1]) for _, its in norms for layers in its.values() for c in layers.values())
    for site, column in by_site.items():
        scale = _colour_range([curve for _, its in norms for curve in its.get(site, {}).values()])
        for axes, (run, its) in zip(column, norms, strict=True):
            if site in its:
                drawn = _draw_heatmap(axes, its[site], scale)
            axes.tick_params(labelsize=SIZE - 1, colors=TEXT)
            axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
            axes.set_facecolor("#F4F4F4")
            axes.set_xlim(0, max(last, run.step or 0) * 1.03 + 1)
        _norm_scale(figure, drawn, column[-1])
    return figure


def _norm_panels(
    search: Search,
    variant: str,
    norms: list[tuple[Run, Norms]],
    size: tuple[float, float],
    frame: Frame,
    y_label: str,
    sharey: bool | Literal["col"],
) -> tuple[Figure, dict[str, list[Axes]]]:
    """A figure with a column a site and a row a run; site -> its panels. A divergence is a dashed line."""
    sites = [site for site in SITES if any(site in its for _, its in norms)]
    figure, grid = panels(len(norms), len(sites), *size, frame, sharex=True, sharey=sharey)
    for row, (run, _) in zip(grid, norms, strict=True):
        words = plain(describe(run, search), 24)
        row[0].set_ylabel(
            f"{words}\n\n{y_label}", fontsize=SIZE - 0.5, color=DIVERGED if run.reason else TEXT
        )
        for axes in row:
            if run.reason and run.step is not None:
                axes.axvline(run.step, color=DIVERGED, linewidth=1.4, linestyle="--")
    for site, top, bottom in zip(sites, grid[0], grid[-1], strict=True):
        top.set_title(f"output of {site}", fontsize=SIZE + 1, loc="left", y=1.02, color=TEXT)
        bottom.set_xlabel("step", fontsize=SIZE, color=TEXT)
    headline(figure, frame, variant)
    return figure, {site: list(column) for site, column in zip(sites, grid.T, strict=True)}


def _draw_curves(axes: Axes, layers: Mapping[int, Curve], colours: ScalarMappable) -> None:
    """Lines break where a norm is no finite number; a triangle at the top marks the step."""
    for layer, curve in layers.items():
        colour = colours.to_rgba(np.array(layer))
        drawable = curve.is_finite & (curve.values > 0)
        axes.plot(curve.steps, np.where(drawable, curve.values, np.nan), color=colour, linewidth=1.1)
        odd = curve.steps[~curve.is_finite]
        if odd.size:
            heights = np.full(odd.size, 0.97)
            place = axes.get_xaxis_transform()
            axes.plot(odd, heights, "^", color=DIVERGED, markersize=4, transform=place, clip_on=False)
    axes.set_yscale("log")


def _draw_heatmap(axes: Axes, layers: Mapping[int, Curve], scale: LogNorm) -> QuadMesh:
    steps = np.unique(np.concatenate([curve.steps for curve in layers.values()]))
    image = np.full((max(layers) + 1, steps.size), np.nan)
    for layer, curve in layers.items():
        # NaN is a step without a reading; a reading that is no finite number lies above the scale. Not at
        # infinity, which matplotlib would not draw.
        drawn = np.where(curve.is_finite, curve.values, _ABOVE)
        image[layer, np.searchsorted(steps, curve.steps)] = drawn
    colours = colormaps[SCALE].with_extremes(over=DIVERGED)
    width = np.diff(steps).min() if steps.size > 1 else 1
    edges = np.append(steps, steps[-1] + width)
    shown = np.ma.masked_where(np.isnan(image), image)
    return axes.pcolormesh(edges, np.arange(image.shape[0] + 1) - 0.5, shown, cmap=colours, norm=scale)


def _colour_range(curves: list[Curve]) -> LogNorm:
    """From the fifth percentile up: the first steps' tiny norms would take up most of the colours."""
    values = np.concatenate([curve.values for curve in curves]) if curves else np.array([])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (np.quantile(values, 0.05), values.max()) if values.size else (1.0, 10.0)
    return LogNorm(low, max(high, low * 1.01))


def _norm_scale(figure: Figure, drawn: QuadMesh, above: Axes) -> None:
    """A bar below a column."""
    place = above.get_position()
    height = figure.get_figheight()
    axes = figure.add_axes((place.x0, 0.42 / height, place.width, 0.1 / height))
    bar = figure.colorbar(drawn, cax=axes, orientation="horizontal", extend="min")
    bar.ax.tick_params(labelsize=SIZE - 1)
    log_axis(bar.ax.xaxis)
    bar.set_label("L2 norm (log scale)", fontsize=SIZE - 0.5, color=TEXT)
