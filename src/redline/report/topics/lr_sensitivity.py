"""How much variants' final losses depend on what was searched, and the rungs that this was computed on."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from matplotlib.figure import Figure

from redline.report.blocks import WORTSMAN, Block, Picture, Section, Table, Text, number
from redline.report.search import Run, Search, Variant, finite
from redline.report.style import EDGE, OTHERS, SIZE, TEXT, Frame, legend, panels, plain, quiet
from redline.stability.sensitivity import lr_sensitivity

_READING = (
    "The mean over {label}s of min(loss, loss at initialisation) minus the best loss: what it costs{nats} "
    "not to know the best {label}. A run without a loss counts as one that learned nothing. It is defined on "
    "a whole grid, and a bisection has not run all of it: rungs crowd around each variant's own edge, so the "
    "numbers on a variant's own rungs cannot be compared between variants. Compare those on the rungs that "
    "all variants ran, where there are several."
)
_HEADINGS = ("variant", "on all its rungs", "its rungs", "on the common rungs")


def section(search: Search, reference: str) -> Section:
    found, common = sensitivities(search), common_values(search)
    rows = [
        [its.variant, number(its.own, ".3f"), _listed(its.own_values), number(its.common, ".3f")]
        for its in found
    ]
    rungs = _listed(common) or "none"
    note = f"Rungs that all variants ran: {rungs} ({len(common)} of the ladder's {len(search.ladder)})."
    title = f"{search.label[0].upper()}{search.label[1:]} sensitivity"
    blocks: list[Block] = [Table("lr_sensitivity", _HEADINGS, rows, ("variant", "its rungs"), [note])]
    if any(its.own is not None for its in found):
        alt = f"{title} of each variant as bars"
        blocks.insert(0, Picture("lr_sensitivity", alt, partial(lr_sensitivity_bars, search)))
    else:
        blocks.append(Text("It takes two finished rungs; no variant has them."))
    reading = _READING.format(label=search.label, nats=", in nats," if search.in_nats else "")
    return Section("lr_sensitivity", title, reading, [*blocks, WORTSMAN])


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def lr_sensitivity_bars(search: Search) -> Figure:
    """What is lost, on average over the rungs, for not knowing the best one; smaller is better."""
    found = sensitivities(search)
    figure, ((axes,),) = panels(1, 1, 5.6, 0.42 * len(found) + 0.1, Frame(left=2.1, top=0.1, bottom=0.85))
    quiet(axes)
    places = range(len(found))
    shared = len(common_values(search))
    for offset, values, colour, label in (
        (0.18, [its.own for its in found], OTHERS, "on every rung that the variant ran"),
        (-0.18, [its.common for its in found], EDGE, f"on the {shared} rungs that all variants ran"),
    ):
        shown = [
            (place - offset, value) for place, value in zip(places, values, strict=True) if value is not None
        ]
        if shown:
            axes.barh([y for y, _ in shown], [x for _, x in shown], height=0.32, color=colour, label=label)
        for y, value in shown:
            axes.text(value, y, f" {value:.2f}", va="center", fontsize=SIZE - 1, color=TEXT)
    axes.set_yticks(list(places), [plain(its.variant, 30) for its in found])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    unit = "nats; " if search.in_nats else ""
    axes.set_xlabel(f"{search.label} sensitivity ({unit}smaller is better)", fontsize=SIZE, color=TEXT)
    legend(figure, axes.get_legend_handles_labels()[0], columns=2)
    return figure


@dataclass(frozen=True)
class Sensitivity:
    """``own`` is on every rung that the variant ran, ``common`` on those that all variants ran.

    None where fewer than two rungs leave nothing to compare.
    """

    variant: str
    own: float | None
    own_values: tuple[float, ...]
    common: float | None


def common_values(search: Search) -> tuple[float, ...]:
    """The rungs on which every variant has a finished run."""
    ran = [set(variant.by_value()) for variant in search.variants]
    return tuple(sorted(set.intersection(*ran))) if ran else ()


def sensitivities(search: Search) -> list[Sensitivity]:
    shared = common_values(search)
    return [
        Sensitivity(variant.name, _on(variant, own), own, _on(variant, shared))
        for variant in search.variants
        for own in [tuple(variant.by_value())]
    ]


def _on(variant: Variant, values: Collection[float]) -> float | None:
    """`lr_sensitivity` of the mean over seeds at each rung, each capped at the loss at initialisation."""
    initial = finite(run.initial_loss for run in variant.finished_runs)
    if len(values) < 2 or not initial:
        return None
    start = fmean(initial)
    runs = variant.by_value()
    return lr_sensitivity([_mean_loss(runs[value], start) for value in values], start)


def _mean_loss(runs: Sequence[Run], initial_loss: float) -> float:
    """A seed without a finite loss counts as one that learned nothing."""
    losses = finite(run.val_loss for run in runs)
    learned_nothing = [initial_loss] * (len(runs) - len(losses))
    return fmean([*learned_nothing, *(min(loss, initial_loss) for loss in losses)])
