"""The table at the end of a search, or how far it has come."""

from collections import Counter
from collections.abc import Iterator

from redline.report.blocks import DASH, Section, Table, number
from redline.report.search import Search, Variant
from redline.search.console.table import WORDS, percent, result_headings, result_notes, result_rows
from redline.search.result import Interval, SearchResult, span

_SO_FAR = ("variant", "largest stable so far", "smallest diverged so far", "finished", "running", "crashed")


def sections(search: Search, reference: str) -> Iterator[Section]:
    result = search.result
    blocks: list[str | Table] = []
    if result.variants:
        headings, rows = result_headings(result, reference), result_rows(result, reference)
        blocks.append(Table("result", headings, rows, WORDS, result_notes(result)))
        blocks += _ratios(result, reference)
    unfinished = [_so_far(variant) for variant in search.variants if variant.result is None]
    if unfinished:
        blocks.append("The search has not ended: what follows is of the runs that have, and may change.")
        note = "By each run's own rules. The same command goes on with the search."
        blocks.append(Table("so_far", _SO_FAR, unfinished, _SO_FAR[:1], [note]))
    yield Section("result", f"Largest useful and largest stable {search.searched}", blocks)


def _ratios(result: SearchResult, reference: str) -> Iterator[Table]:
    """Of both edges, where the search has compared them."""
    found = {name: its.ratio for name, its in result.variants.items() if its.ratio is not None}
    found = {name: its for name, its in found.items() if its.to == reference != name}
    if not found:
        return
    chances = ["P(>1)", *([] if result.claim is None else [f"P(>{result.claim:g})"])]
    headings = ["variant"]
    for kind in ("useful", "stable"):
        headings += [f"{kind} {result.label}", f"{kind} 90%", *(f"{kind} {chance}" for chance in chances)]
    columns = 2 + len(chances)
    rows = []
    for name, its in found.items():
        useful = _ratio_cells(its.useful, its.useful_90, its.useful_chance, its.useful_claim_chance)
        stable = _ratio_cells(its.stable, its.stable_90, its.stable_chance, its.stable_claim_chance)
        rows.append([name, *useful[:columns], *stable[:columns]])
    note = f"Of a variant's {result.label} over that of {reference}."
    yield Table("ratios", headings, rows, ("variant",), [note])


def _ratio_cells(
    ratio: float | None, interval: Interval | None, chance: float | None, claim_chance: float | None
) -> list[str]:
    shown = DASH if interval is None else span(interval)
    return [number(ratio, ".2f"), shown, percent(chance), percent(claim_chance)]


def _so_far(variant: Variant) -> list[str]:
    verdicts = Counter(run.verdict for run in variant.runs)
    counts = (len(variant.finished_runs), verdicts["running"], verdicts["crashed"])
    ends = (variant.largest_stable, variant.first_diverged)
    return [variant.name, *(number(end, "g") for end in ends), *map(str, counts)]
