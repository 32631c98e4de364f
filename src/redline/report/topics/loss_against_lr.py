"""The final loss against what was searched: how hard each variant can be pushed, and what it costs."""

from functools import partial
from statistics import fmean

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from redline.report.blocks import Picture, Section, Text
from redline.report.search import Run, Search, Variant, finite
from redline.report.style import (
    DIVERGED,
    EDGE,
    OTHERS,
    SIZE,
    TEXT,
    draw_run,
    legend,
    line_key,
    run_key,
    variant_panels,
)

_READING = (
    "One marker a run, so several at one {label} are seeds; the line joins their means, each loss capped at "
    "that of the untrained model. A flat curve means that the {label} hardly matters; a rising right end is "
    "where pushing harder destroys what a gentler run learns. Crosses are diverged runs, with the rule that "
    "broke beside the first. Runs in the grey band at the top have no {loss}, as they were ended early "
    "(hollow), or one above that of the untrained model. The small ticks are the ladder's rungs; a bisection "
    "runs few of them.{others}"
)

_BAND = 0.08  # share of the axis, at its top, for runs without a loss on it


def section(search: Search, reference: str) -> Section:
    title = f"{search.loss_name.capitalize()} against {search.searched}"
    others = " Other variants are grey in every panel." if len(search.variants) > 1 else ""
    reading = _READING.format(label=search.label, loss=search.loss_name, others=others)
    if not any(run.finished for run in search.runs):
        return Section("loss_against_lr", title, reading, [Text("No run has ended yet.")])
    picture = Picture(
        "loss_against_lr", f"{title}, a panel for each variant", partial(loss_against_lr, search)
    )
    return Section("loss_against_lr", title, reading, [picture])


def loss_against_lr(search: Search) -> Figure:
    """A panel a variant: a marker a run, a line through the means over seeds, other variants in grey.

    Runs without a final loss, or with one above the loss at initialisation, are in a band at the top.
    """
    figure, panels = variant_panels(
        search, search.loss_name + (" (nats per token)" if search.in_nats else "")
    )
    losses = finite(run.val_loss for run in search.runs)
    initial = finite(run.initial_loss for run in search.runs)
    low = min(losses, default=0.0)
    # A score in another unit than the training loss is not held against it.
    start = fmean(initial) if initial and fmean(initial) > low else None
    high = max(losses, default=low + 1) if start is None else start
    high = high if high > low else low + 1
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
            draw_run(axes, run, _height(run, ceiling, band), hollow=not run.has_loss)
        _name_reason(axes, variant, ceiling, band)
    panels[0].set_ylim(low - 0.06 * (high - low), ceiling + 2 * band)
    _explain(figure, search, initial=start is not None)
    return figure


def _means(variant: Variant, high: float) -> dict[float, float]:
    """Value -> mean over the seeds that have a loss, each at most ``high``."""
    losses = {value: finite(run.val_loss for run in runs) for value, runs in variant.by_value().items()}
    return {value: fmean(min(loss, high) for loss in its) for value, its in losses.items() if its}


def _line(axes: Axes, means: dict[float, float], colour: str, width: float) -> None:
    axes.plot(list(means), list(means.values()), color=colour, linewidth=width, zorder=1.5)


def _height(run: Run, ceiling: float, band: float) -> float:
    """Of a run's marker; in the band, those without a loss are above the others."""
    for loss in finite([run.val_loss]):
        return loss if loss <= ceiling else ceiling + 0.6 * band
    return ceiling + 1.4 * band


def _name_reason(axes: Axes, variant: Variant, ceiling: float, band: float) -> None:
    """The rule that broke, beside the first diverged rung."""
    broken = [run for run in variant.finished_runs if run.value == variant.first_diverged_lr and run.reason]
    for run in broken[:1]:
        assert run.reason is not None
        low, high = axes.get_xlim()
        near_right = run.value > low * (high / low) ** 0.85
        axes.annotate(
            run.reason,
            (run.value, _height(run, ceiling, band)),
            xytext=(-7 if near_right else 7, -3),
            textcoords="offset points",
            va="top",
            ha="right" if near_right else "left",
            fontsize=SIZE - 1,
            color=DIVERGED,
        )


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
