"""The largest attention logit against learning rate: the cause, where attention is what breaks."""

import math
from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from redline.report.figures.panels import lr_panels
from redline.report.figures.style import COLOURS, EDGE, MARKERS, OTHERS, TEXT, legend, log_axis
from redline.report.literature import literature
from redline.report.logits import largest_logit
from redline.report.search import Run, Search


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
    finite = [logit for its in found.values() for _, logit in its if math.isfinite(logit) and logit > 0]
    if not any(found.values()):
        raise ValueError("no attention logits were logged")
    paper = literature().wortsman
    figure, panels = lr_panels(search, "largest attention logit of the run (log scale)")
    low = min([*finite, paper.logit_hurts]) / 2
    high = max([*finite, paper.logit_diverges]) * 3
    panels[0].set_yscale("log")  # they share it
    panels[0].set_ylim(low, high)
    for axes, variant in zip(panels, search.variants, strict=True):
        for threshold, style in ((paper.logit_hurts, ":"), (paper.logit_diverges, "--")):
            axes.axhline(threshold, color=TEXT, linewidth=0.9, linestyle=style)
        for name, its in found.items():
            tops = _tops(its)
            line = TEXT if name == variant.name else OTHERS
            axes.plot(list(tops), list(tops.values()), color=line, linewidth=0.9, zorder=1.5)
        for run, logit in found[variant.name]:
            hollow = not math.isfinite(logit)
            colour = COLOURS[run.verdict]
            axes.plot(
                run.lr,
                high / 1.6 if hollow else max(logit, low),
                MARKERS[run.verdict],
                color=colour,
                markerfacecolor="white" if hollow else colour,
                markersize=6.5,
                zorder=3,
            )
    log_axis(panels[0].yaxis)
    _explain(figure, paper)
    return figure


def _tops(its: list[tuple[Run, float]]) -> dict[float, float]:
    """LR -> the largest finite one of its seeds."""
    tops: dict[float, float] = {}
    for run, logit in its:
        if math.isfinite(logit) and logit > 0:
            tops[run.lr] = max(logit, tops.get(run.lr, logit))
    return tops


def _explain(figure: Figure, paper: object) -> None:
    hurts, diverges = paper.logit_hurts, paper.logit_diverges  # type: ignore[attr-defined]
    handles = [
        Line2D([], [], marker=MARKERS[kind], color=COLOURS[kind], linestyle="none", label=f"{kind} run")
        for kind in MARKERS
    ]
    handles += [
        Line2D(
            [], [], marker="o", color=TEXT, mfc="white", linestyle="none", label="not finite (at the top)"
        ),
        Line2D(
            [], [], color=TEXT, linewidth=0.9, linestyle=":", label=f"{hurts:g}: loss hurt (Wortsman et al.)"
        ),
        Line2D(
            [], [], color=TEXT, linewidth=0.9, linestyle="--", label=f"{diverges:g}: all of theirs diverged"
        ),
        Line2D([], [], color=EDGE, linewidth=1.4, label="largest stable LR"),
    ]
    legend(figure, handles, columns=3)
