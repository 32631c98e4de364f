"""The final loss against what was searched: how hard each variant can be pushed, and what it costs."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from redline.report.blocks import Picture, Section
from redline.report.search import Run, Search, Variant, finite, initial_loss
from redline.report.style import (
    CUT,
    DIVERGED,
    OTHERS,
    TEXT,
    draw_lines,
    draw_run,
    edge_keys,
    legend,
    line_key,
    run_key,
    styled,
    variant_panels,
)
from redline.search.console.table import recipe_text
from redline.search.result import Curve

_BAND = 0.08  # share of the axis, at its top, for runs without a loss on it


def sections(search: Search, reference: str) -> Iterator[Section]:
    title = f"{search.loss_name.capitalize()} against {search.searched}"
    if any(run.finished for run in search.runs):
        alt = f"{title}, a panel for each variant"
        blocks: list[str | Picture] = [Picture("loss_against_lr", alt, partial(loss_against_lr, search))]
    else:
        blocks = ["No run has ended yet."]
    if search.result.recipe:
        blocks.append(f"Recipe: {recipe_text(search.result.recipe)}.")
    yield Section("loss_against_lr", title, blocks)


@styled
def loss_against_lr(search: Search) -> Figure:
    """A panel a variant: a marker a run, the curve with its band, other variants in grey.

    Where a variant has no curve, the line is through the means over seeds. Runs without a final loss, or with
    one above the loss at initialisation, are in a band at the top.
    """
    losses = finite(run.shown_loss for run in search.runs)
    low, start = min(losses, default=0.0), initial_loss(search.runs)
    if start is not None and start <= low:  # a score in another unit than the training loss
        start = None
    high = max(losses, default=low + 1) if start is None else start
    high = high if high > low else low + 1
    ceiling = high + 0.02 * (high - low)
    band = _BAND * (high - low)
    bottom, top = low - 0.06 * (high - low), ceiling + 2 * band
    lines = {variant.name: _line(variant).clip(upper=high) for variant in search.variants}
    figure, panels = variant_panels(
        search, search.loss_name + (" (nats per token)" if search.in_nats else "")
    )
    for axes, variant in zip(panels, search.variants, strict=True):
        curve = _curve(variant)
        draw_lines(axes, lines, variant.name)
        if curve is not None:
            _draw_curve(axes, curve, high, (ceiling - bottom) / (top - bottom))
        if start is not None:
            axes.axhline(start, color=TEXT, linewidth=0.8, linestyle=":")
        axes.axhspan(ceiling, ceiling + 2 * (high - low), color="#F4F4F4", linewidth=0)
        for run in variant.finished_runs:
            draw_run(axes, run, _height(run, ceiling, band), hollow=not finite([run.val_loss]))
        _name_reason(axes, variant, ceiling, band)
    panels[0].set_ylim(bottom, top)
    _explain(figure, search, initial=start is not None)
    return figure


def _curve(variant: Variant) -> Curve | None:
    return None if variant.result is None else variant.result.curve


def _line(variant: Variant) -> pd.Series:
    """Value -> loss: the curve, or else the means over seeds."""
    curve = _curve(variant)
    if curve is None:
        return variant.losses.groupby(level=0).mean().dropna()
    return pd.Series(curve.loss, curve.lr, dtype=float)


def _draw_curve(axes: Axes, curve: Curve, high: float, one: float) -> None:
    """The curve's band, and both chances: 0 at the panel's foot, 1 at the height ``one`` (share of it)."""
    low, top = (np.minimum(its, high) for its in (curve.loss_low, curve.loss_high))
    axes.fill_between(curve.lr, low, top, color=TEXT, alpha=0.15, linewidth=0)
    for chances, colour, style in (
        (curve.chance_lost, CUT, "--"),
        (curve.chance_diverged, DIVERGED, ":"),
    ):
        heights = one * np.asarray(chances)
        place = axes.get_xaxis_transform()
        axes.plot(curve.lr, heights, color=colour, linestyle=style, linewidth=1.2, transform=place)


def _height(run: Run, ceiling: float, band: float) -> float:
    """Of a run's marker; in the band, those without a loss are above the others."""
    for loss in finite([run.shown_loss]):
        return loss if loss <= ceiling else ceiling + 0.6 * band
    return ceiling + 1.4 * band


def _name_reason(axes: Axes, variant: Variant, ceiling: float, band: float) -> None:
    """The rule that broke, beside the first diverged rung."""
    for run in variant.finished_runs:
        if run.value != variant.first_diverged or run.reason is None:
            continue
        low, high = axes.get_xlim()
        near_right = run.value > low * (high / low) ** 0.85
        axes.annotate(
            run.reason,
            (run.value, _height(run, ceiling, band)),
            xytext=(-7 if near_right else 7, -3),
            textcoords="offset points",
            va="top",
            ha="right" if near_right else "left",
            fontsize="small",
            color=DIVERGED,
        )
        return


def _explain(figure: Figure, search: Search, *, initial: bool) -> None:
    handles: list[Artist] = [
        run_key("stable", "stable run"),
        run_key("diverged", "diverged run"),
        run_key("diverged", "diverged, no loss to show", hollow=True),
        run_key("cut", "cut run, at the loss expected of it", hollow=True),
        *edge_keys(search.label),
    ]
    if any(_curve(variant) is not None for variant in search.variants):
        handles += [
            Patch(color=TEXT, alpha=0.15, label="holds the curve with 90%"),
            line_key("P(lost): 0 at the foot, 1 at the grey band", CUT, "--", width=1.2),
            line_key("P(diverged), likewise", DIVERGED, ":", width=1.2),
        ]
    if initial:
        handles.append(line_key("loss at initialisation", style=":"))
    if len(search.variants) > 1:
        handles.append(line_key("other variants", OTHERS))
    legend(figure, handles, columns=4)
