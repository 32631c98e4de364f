"""How much variants' final losses depend on what was searched, and the rungs that this was computed on."""

from collections.abc import Collection, Iterable, Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from redline.report.blocks import WORTSMAN, Picture, Section, Table, number
from redline.report.search import Search, Variant, initial_loss
from redline.report.style import EDGE, OTHERS, legend, plain, styled
from redline.stability.sensitivity import lr_sensitivity

_HEADINGS = ("variant", "on all its rungs", "its rungs", "on the common rungs")


def sections(search: Search, reference: str) -> Iterator[Section]:
    common = common_values(search)
    rows, known = [], False
    for variant in search.variants:
        own = sensitivity(variant, variant.values)
        known = known or own is not None
        shared = number(sensitivity(variant, common), ".3f")
        rows.append([variant.name, number(own, ".3f"), _listed(variant.values), shared])
    rungs = _listed(common) or "none"
    note = f"Rungs that all variants ran: {rungs} ({len(common)} of the ladder's {len(search.ladder)})."
    table = Table("lr_sensitivity", _HEADINGS, rows, ("variant", "its rungs"), [note])
    title = f"{search.label[0].upper()}{search.label[1:]} sensitivity"
    picture = Picture(
        "lr_sensitivity", f"{title} of each variant as bars", partial(lr_sensitivity_bars, search)
    )
    nothing = "It takes two finished rungs; no variant has them."
    yield Section("lr_sensitivity", title, (picture, table) if known else (table, nothing), WORTSMAN)


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


@styled
def lr_sensitivity_bars(search: Search) -> Figure:
    """What is lost, on average over the rungs, for not knowing the best one; smaller is better."""
    variants, common = search.variants, common_values(search)
    figure = Figure(figsize=(7.85, 0.42 * len(variants) + 1.05))
    axes = figure.subplots()
    for offset, found, colour, label in (
        (
            0.18,
            [sensitivity(its, its.values) for its in variants],
            OTHERS,
            "on every rung that the variant ran",
        ),
        (
            -0.18,
            [sensitivity(its, common) for its in variants],
            EDGE,
            f"on the {len(common)} rungs that all variants ran",
        ),
    ):
        shown = pd.Series(found, dtype=float).dropna()
        if not shown.empty:
            bars = axes.barh(shown.index - offset, shown, height=0.32, color=colour, label=label)
            axes.bar_label(bars, fmt=" {:.2f}", fontsize="small")
    axes.set_yticks(range(len(variants)), [plain(its.name, 30) for its in variants])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    unit = "nats; " if search.in_nats else ""
    axes.set_xlabel(f"{search.label} sensitivity ({unit}smaller is better)")
    legend(figure, axes.get_legend_handles_labels()[0], columns=2)
    return figure


def common_values(search: Search) -> tuple[float, ...]:
    """The rungs on which every variant has a finished run."""
    ran = [set(variant.values) for variant in search.variants]
    return tuple(sorted(set.intersection(*ran)))


def sensitivity(variant: Variant, values: Collection[float]) -> float | None:
    """`lr_sensitivity` on these rungs, of the mean over seeds, each capped at the loss at initialisation.

    A seed without a finite loss counts as one that learned nothing. None where fewer than two rungs leave
    nothing to compare.
    """
    start = initial_loss(variant.runs)
    if len(values) < 2 or start is None:
        return None
    means = variant.losses.fillna(start).clip(upper=start).groupby(level=0).mean()
    return lr_sensitivity(means[list(values)].tolist(), start)
