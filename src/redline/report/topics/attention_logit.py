"""The largest attention logit: the cause, where attention is what breaks."""

import math
from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from redline.metrics import MAX_LOGIT
from redline.report.blocks import WORTSMAN, Picture, Section
from redline.report.search import Run, Search
from redline.report.style import (
    TEXT,
    draw_lines,
    draw_run,
    edge_keys,
    legend,
    line_key,
    log_axis,
    run_key,
    styled,
    variant_panels,
)

# Of Wortsman et al.
LOSS_IS_HURT = 1.0e3
ALL_DIVERGED = 1.0e4


def sections(search: Search, reference: str) -> Iterator[Section]:
    title = "Largest attention logit"
    if any(largest_logit(run) is not None for run in search.runs if run.finished):
        alt = f"{title} against {search.searched}, a panel for each variant"
        picture = Picture("max_attention_logit", alt, partial(max_attention_logit, search))
        yield Section("max_attention_logit", title, [picture], WORTSMAN)
    elif search.in_nats:
        why = search.curves.trouble or "the tap was off"
        yield Section("max_attention_logit", title, [f"None of the runs logged {MAX_LOGIT}: {why}."])


def largest_logit(run: Run) -> float | None:
    """The maximum over the run's readings; infinite where one was no finite number, None without any."""
    curve = run.history(MAX_LOGIT).fillna(math.inf)
    return None if curve.empty else float(curve.max())


@styled
def max_attention_logit(search: Search) -> Figure:
    """A panel a variant, a marker a run: the maximum over the run. Raises ValueError where none was logged.

    A run whose logits became infinite or NaN is a hollow marker at the top.
    """
    found = {
        variant.name: [
            (run, logit) for run in variant.finished_runs if (logit := largest_logit(run)) is not None
        ]
        for variant in search.variants
    }
    if not any(found.values()):
        raise ValueError("no attention logits were logged")
    tops = {name: _tops(its) for name, its in found.items()}
    known = pd.concat(tops.values())
    low, high = min([*known, LOSS_IS_HURT]) / 2, max([*known, ALL_DIVERGED]) * 3
    figure, panels = variant_panels(search, "largest attention logit of the run (log scale)")
    panels[0].set_yscale("log")  # they share it
    panels[0].set_ylim(low, high)
    for axes, variant in zip(panels, search.variants, strict=True):
        for threshold, style in ((LOSS_IS_HURT, ":"), (ALL_DIVERGED, "--")):
            axes.axhline(threshold, color=TEXT, linewidth=0.9, linestyle=style)
        draw_lines(axes, tops, variant.name)
        for run, logit in found[variant.name]:
            hollow = not math.isfinite(logit)
            draw_run(axes, run, high / 1.6 if hollow else max(logit, low), hollow=hollow)
    log_axis(panels[0].yaxis)
    handles = [
        run_key("stable", "stable run"),
        run_key("diverged", "diverged run"),
        run_key("cut", "cut run"),
        run_key("diverged", "not finite (at the top)", hollow=True),
        line_key(f"{LOSS_IS_HURT:g}: loss hurt (Wortsman et al.)", style=":"),
        line_key(f"{ALL_DIVERGED:g}: all of theirs diverged", style="--"),
        *edge_keys(search.label),
    ]
    legend(figure, handles, columns=3)
    return figure


def _tops(its: list[tuple[Run, float]]) -> pd.Series:
    """Value -> the largest finite one of its seeds."""
    logits = pd.Series([logit for _, logit in its], [run.value for run, _ in its], dtype=float)
    return logits[(logits > 0) & (logits < math.inf)].groupby(level=0).max()
