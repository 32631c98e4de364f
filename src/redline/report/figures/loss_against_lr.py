"""Validation loss against learning rate: how hard each variant can be pushed, and what it costs."""

import math
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from redline.report.figures.panels import lr_panels
from redline.report.figures.style import COLOURS, DIVERGED, EDGE, MARKERS, OTHERS, SIZE, TEXT, legend
from redline.report.search import Run, Search, Variant

_BAND = 0.08  # share of the axis, at its top, for runs without a loss on it


def loss_against_lr(search: Search) -> Figure:
    """A panel a variant: a marker a run, a line through the means over seeds, other variants in grey.

    Runs without a validation loss, or with one above the loss at initialisation, are in a band at the top.
    """
    figure, panels = lr_panels(search, "validation loss (nats per token)")
    losses = [run.val_loss for run in search.runs if run.has_loss and run.val_loss is not None]
    initial = [
        run.initial_loss for run in search.runs if run.initial_loss and math.isfinite(run.initial_loss)
    ]
    start = fmean(initial) if initial else None
    low = min(losses, default=0.0)
    high = max(start if start is not None else max(losses, default=1.0), low + 0.1)
    ceiling = high + 0.02 * (high - low)
    band = _BAND * (high - low)
    means = {variant.name: _means(variant, high) for variant in search.variants}
    for axes, variant in zip(panels, search.variants, strict=True):
        for other, its in means.items():
            if other != variant.name:
                _line(axes, its, OTHERS, 0.9)
        _line(axes, means[variant.name], TEXT, 1.1)
        if start is not None:
            axes.axhline(start, color=TEXT, linewidth=0.8, linestyle=":")
        axes.axhspan(ceiling, ceiling + 2 * (high - low), color="#F4F4F4", linewidth=0)
        for run in variant.finished_runs:
            _draw(axes, run, ceiling, band)
        _name_reason(axes, variant, ceiling, band)
    panels[0].set_ylim(low - 0.06 * (high - low), ceiling + 2 * band)
    _explain(figure, several=len(search.variants) > 1, initial=start is not None)
    return figure


def _means(variant: Variant, high: float) -> dict[float, float]:
    """LR -> mean over the seeds that have a loss, each at most ``high``."""
    losses = {
        lr: [min(run.val_loss, high) for run in runs if run.has_loss and run.val_loss is not None]
        for lr, runs in variant.by_lr().items()
    }
    return {lr: fmean(its) for lr, its in losses.items() if its}


def _line(axes: Axes, means: dict[float, float], colour: str, width: float) -> None:
    axes.plot(list(means), list(means.values()), color=colour, linewidth=width, zorder=1.5)


def _height(run: Run, ceiling: float, band: float) -> float:
    """Of a run's marker; in the band, those without a loss are above the others."""
    if not run.has_loss or run.val_loss is None:
        return ceiling + 1.4 * band
    return run.val_loss if run.val_loss <= ceiling else ceiling + 0.6 * band


def _draw(axes: Axes, run: Run, ceiling: float, band: float) -> None:
    filled = run.has_loss
    colour = COLOURS[run.verdict]
    axes.plot(
        run.lr,
        _height(run, ceiling, band),
        MARKERS[run.verdict],
        color=colour,
        markerfacecolor=colour if filled else "white",
        markersize=6.5,
        markeredgewidth=1.0,
        alpha=0.9,
        zorder=3,
    )


def _name_reason(axes: Axes, variant: Variant, ceiling: float, band: float) -> None:
    """The rule that broke, beside the first diverged rung."""
    broken = [run for run in variant.finished_runs if run.lr == variant.first_diverged_lr and run.reason]
    for run in broken[:1]:
        assert run.reason is not None
        low, high = axes.get_xlim()
        near_right = run.lr > low * (high / low) ** 0.85
        axes.annotate(
            run.reason,
            (run.lr, _height(run, ceiling, band)),
            xytext=(-7 if near_right else 7, -3),
            textcoords="offset points",
            va="top",
            ha="right" if near_right else "left",
            fontsize=SIZE - 1,
            color=DIVERGED,
        )


def _explain(figure: Figure, *, several: bool, initial: bool) -> None:
    def marker(kind: str, name: str, filled: bool = True) -> Line2D:
        face = COLOURS[kind] if filled else "white"
        return Line2D(
            [], [], marker=MARKERS[kind], color=COLOURS[kind], mfc=face, linestyle="none", label=name
        )

    handles: list[Line2D | Patch] = [
        marker("stable", "stable run"),
        marker("diverged", "diverged run"),
        marker("diverged", "diverged, no loss to show", filled=False),
        Line2D([], [], color=EDGE, linewidth=1.4, label="largest stable LR"),
        Patch(color=EDGE, alpha=0.12, label="holds the edge with 90%"),
    ]
    if initial:
        handles.append(
            Line2D([], [], color=TEXT, linewidth=0.8, linestyle=":", label="loss at initialisation")
        )
    if several:
        handles.append(Line2D([], [], color=OTHERS, label="other variants"))
    legend(figure, handles, columns=4)
