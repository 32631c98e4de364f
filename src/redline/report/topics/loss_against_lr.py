"""The final loss against what was searched: how hard each variant can be pushed, and what it costs."""

from collections.abc import Iterator
from functools import partial

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from redline.report.blocks import Picture, Section
from redline.report.search import Run, Search, Variant, finite, initial_loss
from redline.report.style import (
    DIVERGED,
    EDGE,
    OTHERS,
    TEXT,
    draw_lines,
    draw_run,
    legend,
    line_key,
    run_key,
    styled,
    variant_panels,
)

_BAND = 0.08  # share of the axis, at its top, for runs without a loss on it


def sections(search: Search, reference: str) -> Iterator[Section]:
    title = f"{search.loss_name.capitalize()} against {search.searched}"
    shown: str | Picture = "No run has ended yet."
    if any(run.finished for run in search.runs):
        alt = f"{title}, a panel for each variant"
        shown = Picture("loss_against_lr", alt, partial(loss_against_lr, search))
    yield Section("loss_against_lr", title, [shown])


@styled
def loss_against_lr(search: Search) -> Figure:
    """A panel a variant: a marker a run, a line through the means over seeds, other variants in grey.

    Runs without a final loss, or with one above the loss at initialisation, are in a band at the top.
    """
    losses = finite(run.val_loss for run in search.runs)
    low, start = min(losses, default=0.0), initial_loss(search.runs)
    if start is not None and start <= low:  # a score in another unit than the training loss
        start = None
    high = max(losses, default=low + 1) if start is None else start
    high = high if high > low else low + 1
    ceiling = high + 0.02 * (high - low)
    band = _BAND * (high - low)
    means = {
        variant.name: variant.losses.clip(upper=high).groupby(level=0).mean().dropna()
        for variant in search.variants
    }
    figure, panels = variant_panels(
        search, search.loss_name + (" (nats per token)" if search.in_nats else "")
    )
    for axes, variant in zip(panels, search.variants, strict=True):
        draw_lines(axes, means, variant.name)
        if start is not None:
            axes.axhline(start, color=TEXT, linewidth=0.8, linestyle=":")
        axes.axhspan(ceiling, ceiling + 2 * (high - low), color="#F4F4F4", linewidth=0)
        for run in variant.finished_runs:
            draw_run(axes, run, _height(run, ceiling, band), hollow=not finite([run.val_loss]))
        _name_reason(axes, variant, ceiling, band)
    panels[0].set_ylim(low - 0.06 * (high - low), ceiling + 2 * band)
    _explain(figure, search, initial=start is not None)
    return figure


def _height(run: Run, ceiling: float, band: float) -> float:
    """Of a run's marker; in the band, those without a loss are above the others."""
    for loss in finite([run.val_loss]):
        return loss if loss <= ceiling else ceiling + 0.6 * band
    return ceiling + 1.4 * band


def _name_reason(axes: Axes, variant: Variant, ceiling: float, band: float) -> None:
    """The rule that broke, beside the first diverged rung."""
    for run in variant.finished_runs:
        if run.value != variant.first_diverged_lr or run.reason is None:
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
        line_key(f"largest stable {search.label}", EDGE, width=1.4),
        Patch(color=EDGE, alpha=0.12, label="holds the edge with 90%"),
    ]
    if initial:
        handles.append(line_key("loss at initialisation", style=":"))
    if len(search.variants) > 1:
        handles.append(line_key("other variants", OTHERS))
    legend(figure, handles, columns=4)
