"""The table at the end of a search, or how far it has come."""

from collections import Counter
from collections.abc import Iterator

from redline.report.blocks import Section, Table, number
from redline.report.search import Search, Variant
from redline.search.console.table import WORDS, result_headings, result_notes, result_rows

_SO_FAR = ("variant", "largest stable so far", "smallest diverged so far", "finished", "running", "crashed")


def sections(search: Search, reference: str) -> Iterator[Section]:
    result = search.result
    blocks: list[str | Table] = []
    if result.variants:
        headings, rows = result_headings(result, reference), result_rows(result, reference)
        blocks.append(Table("result", headings, rows, WORDS, result_notes(result)))
    unfinished = [_so_far(variant) for variant in search.variants if variant.result is None]
    if unfinished:
        blocks.append("The search has not ended: what follows is of the runs that have, and may change.")
        note = "By a majority of the seeds. The same command goes on with the search."
        blocks.append(Table("so_far", _SO_FAR, unfinished, _SO_FAR[:1], [note]))
    yield Section("result", f"Largest stable {search.searched}", blocks)


def _so_far(variant: Variant) -> list[str]:
    verdicts = Counter(run.verdict for run in variant.runs)
    counts = (len(variant.finished_runs), verdicts["running"], verdicts["crashed"])
    ends = (variant.max_stable_lr, variant.first_diverged_lr)
    return [variant.name, *(number(end, "g") for end in ends), *map(str, counts)]
