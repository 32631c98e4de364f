"""Which layer's output grew first."""

import math

from redline.report.blocks import Block, Section, Source, Text
from redline.report.literature import literature
from redline.report.norms import first_growth, output_norms
from redline.report.search import Search, Variant

ORDER = 40


def section(search: Search, reference: str) -> Section:
    paper = literature().rybakov
    reading = (
        f"The first output of a linear layer whose L2 norm (mean over tokens) exceeds {paper.growth:g} times "
        "that of the stable run at the same step: the run just above the edge against the one at it. It says "
        "where to look, not what caused what: the two differ in LR from the first step on."
    )
    sentences: list[Block] = [Text(growth_sentence(variant, paper.growth)) for variant in search.variants]
    return Section("growth", "What grew first", reading, [*sentences, Source(paper.source, paper.url)])


def growth_sentence(variant: Variant, factor: float) -> str:
    """What `first_growth` finds of a variant, or why it finds nothing."""
    stable, diverged = variant.pair
    if stable is None or diverged is None:
        missing = "stable" if stable is None else "diverged"
        return f"{variant.name}: there is no {missing} run to compare with."
    norms = output_norms(stable), output_norms(diverged)
    rates = f"LR {diverged.lr:g} against {stable.lr:g}"
    if not all(norms):
        return f"{variant.name}: no output norms were logged ({rates})."
    ended = f"it was judged diverged by {diverged.reason} at step {diverged.step}"
    found = first_growth(*norms, factor)
    if found is None:
        none = f"no layer's output exceeded {factor:g} times the stable run's"
        return f"{variant.name}: {none} ({rates}; {ended})."
    size = f"{found.ratio:.1f} times the stable run's" if math.isfinite(found.ratio) else "no finite number"
    return (
        f"{variant.name}: {found.site} of layer {found.layer} grew first. At step {found.step} its norm was "
        f"{size} ({rates}; {ended})."
    )
