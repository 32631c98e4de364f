"""The largest attention logit: the cause, where attention is what breaks."""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from redline.metrics import MAX_LOGIT
from redline.report.blocks import WORTSMAN, Block, Picture, Section, Text
from redline.report.search import Run, Search
from redline.report.style import (
    EDGE,
    OTHERS,
    TEXT,
    draw_run,
    legend,
    line_key,
    log_axis,
    run_key,
    variant_panels,
)

# Of Wortsman et al.
LOSS_IS_HURT = 1.0e3
ALL_DIVERGED = 1.0e4

_READING = (
    "The largest attention logit, q·k/√K before any cap, over all layers, heads and readings of a run. "
    f"In Wortsman et al. every run that passed {ALL_DIVERGED:g} diverged, and the loss was already hurt near "
    f"{LOSS_IS_HURT:g}. A variant that diverges far below breaks elsewhere."
)


def section(search: Search, reference: str) -> Section | None:
    blocks: list[Block]
    if any(largest_logit(run) is not None for run in search.runs if run.finished):
        alt = f"Largest attention logit against {search.searched}, a panel for each variant"
        blocks = [Picture("max_attention_logit", alt, partial(max_attention_logit, search)), WORTSMAN]
    elif search.in_nats:
        why = search.curves.trouble or "the tap was off"
        blocks = [Text(f"None of the runs logged {MAX_LOGIT}: {why}.")]
    else:
        return None
    return Section("max_attention_logit", "Largest attention logit", _READING, blocks)


def largest_logit(run: Run) -> float | None:
    """The maximum over the run's readings; infinite where one was no finite number, None without any."""
    curve = run.history(MAX_LOGIT)
    if not len(curve.values):
        return None
    return float(np.max(curve.values)) if curve.is_finite.all() else math.inf


def max_attention_logit(search: Search) -> Figure:
    """A panel a variant, a marker a run: the maximum over the run. Raises ValueError where none was logged.

    A run whose logits became infinite or NaN is a hollow marker at the top.
    """
    found: Mapping[str, list[tuple[Run, float]]] = {
        variant.name: [
            (run, logit) for run in variant.finished_runs if (logit := largest_logit(run)) is not None
        ]
        for variant in search.variants
    }
    if not any(found.values()):
        raise ValueError("no attention logits were logged")
    figure, panels = variant_panels(search, "largest attention logit of the run (log scale)")
    known = [logit for its in found.values() for logit in _tops(its).values()]
    low, high = min([*known, LOSS_IS_HURT]) / 2, max([*known, ALL_DIVERGED]) * 3
    panels[0].set_yscale("log")  # they share it
    panels[0].set_ylim(low, high)
    for axes, variant in zip(panels, search.variants, strict=True):
        for threshold, style in ((LOSS_IS_HURT, ":"), (ALL_DIVERGED, "--")):
            axes.axhline(threshold, color=TEXT, linewidth=0.9, linestyle=style)
        for name, its in found.items():
            tops = _tops(its)
            line = TEXT if name == variant.name else OTHERS
            axes.plot(list(tops), list(tops.values()), color=line, linewidth=0.9, zorder=1.5)
        for run, logit in found[variant.name]:
            hollow = not math.isfinite(logit)
            draw_run(axes, run, high / 1.6 if hollow else max(logit, low), hollow=hollow)
    log_axis(panels[0].yaxis)
    _explain(figure, search.label)
    return figure


def _tops(its: list[tuple[Run, float]]) -> dict[float, float]:
    """Value -> the largest finite one of its seeds."""
    tops: dict[float, float] = {}
    for run, logit in its:
        if math.isfinite(logit) and logit > 0:
            tops[run.value] = max(logit, tops.get(run.value, logit))
    return tops


def _explain(figure: Figure, label: str) -> None:
    handles = [
        run_key("stable", "stable run"),
        run_key("diverged", "diverged run"),
        run_key("diverged", "not finite (at the top)", hollow=True),
        line_key(f"{LOSS_IS_HURT:g}: loss hurt (Wortsman et al.)", style=":"),
        line_key(f"{ALL_DIVERGED:g}: all of theirs diverged", style="--"),
        line_key(f"largest stable {label}", EDGE, width=1.4),
    ]
    legend(figure, handles, columns=3)
