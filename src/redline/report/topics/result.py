"""The table at the end of a search, or how far it has come."""

from redline.report.blocks import Block, Section, Table, Text, number
from redline.report.search import Search, Variant
from redline.search.console.table import WORDS, result_headings, result_notes, result_rows

_READING = (
    "The largest stable {label} is the largest rung of the ladder below which no rung diverged, by vote of "
    "the seeds. “edge (90%)” is the interval that holds the edge with 90% probability, given every run's "
    "verdict. The rule that broke is that of most runs at the first diverged {label}, with the earliest step "
    "at which it did so. {score} is that at the largest stable {label}. “of grid” is the share of the "
    "optimizer steps that running every rung and every seed at full length would have taken."
)
_SO_FAR = ("variant", "largest stable so far", "smallest diverged so far", "finished", "running", "crashed")


def section(search: Search, reference: str) -> Section:
    result = search.result
    score = "Perplexity" if result.in_nats else "The final score"
    blocks: list[Block] = []
    if result.variants:
        headings, rows = result_headings(result, reference), result_rows(result, reference)
        blocks.append(Table("result", headings, rows, WORDS, result_notes(result)))
    unfinished = [_so_far(variant) for variant in search.variants if variant.result is None]
    if unfinished:
        blocks.append(
            Text("The search has not ended: what follows is of the runs that have, and may change.")
        )
        note = "By a majority of the seeds. The same command goes on with the search."
        blocks.append(Table("so_far", _SO_FAR, unfinished, _SO_FAR[:1], [note]))
    reading = _READING.format(label=search.label, score=score)
    return Section("result", f"Largest stable {search.searched}", reading, blocks)


def _so_far(variant: Variant) -> list[str]:
    counts = [
        sum(run.finished for run in variant.runs),
        *(sum(run.verdict == verdict for run in variant.runs) for verdict in ("running", "crashed")),
    ]
    ends = (variant.max_stable_lr, variant.first_diverged_lr)
    return [variant.name, *(number(end, "g") for end in ends), *map(str, counts)]
