"""LR sensitivity."""

from functools import partial

from redline.report.blocks import Block, Picture, Section, Source, Table, Text, number
from redline.report.figures import lr_sensitivity_bars
from redline.report.literature import literature
from redline.report.search import Search
from redline.report.sensitivity import common_lrs, sensitivities

ORDER = 30

_READING = (
    "The mean over LRs of min(loss, loss at initialisation) minus the best loss: what it costs, in nats, not "
    "to know the best LR. A run without a loss counts as one that learned nothing. It is defined on a whole "
    "grid, and a bisection has not run all of it: rungs crowd around each variant's own edge, so the numbers "
    "on a variant's own rungs cannot be compared between variants. Compare those on the rungs that all "
    "variants ran, where there are several."
)
_HEADINGS = ("variant", "on all its rungs", "its rungs", "on the common rungs")


def section(search: Search, reference: str) -> Section:
    found, common = sensitivities(search), common_lrs(search)
    rungs = ", ".join(f"{lr:g}" for lr in common) or "none"
    rows = [
        [
            its.variant,
            number(its.own, ".3f"),
            ", ".join(f"{lr:g}" for lr in its.own_lrs),
            number(its.common, ".3f"),
        ]
        for its in found
    ]
    note = f"Rungs that all variants ran: {rungs} ({len(common)} of the ladder's {len(search.ladder)})."
    blocks: list[Block] = [Table("lr_sensitivity", _HEADINGS, rows, ("variant", "its rungs"), [note])]
    if any(its.own is not None for its in found):
        alt = "LR sensitivity of each variant as bars"
        blocks.insert(0, Picture("lr_sensitivity", alt, partial(lr_sensitivity_bars, search)))
    else:
        blocks.append(Text("It takes two finished rungs; no variant has them."))
    paper = literature().wortsman
    return Section("lr_sensitivity", "LR sensitivity", _READING, [*blocks, Source(paper.source, paper.url)])
