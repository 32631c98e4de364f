"""The table at the end of a search."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from redline.search.result import VERSION, Interval, Ratio, SearchResult, VariantResult, span, spelled_out

_CHANGED = "steps changed"
WORDS = ("variant", _CHANGED, "rule that broke first", "stopped by")  # the other columns are numbers
_NAME = 40  # columns that a variant's name gets at the cost of others
_UNKNOWN = "–"


def result_table(result: SearchResult, reference: str) -> Table:
    """One row a variant; ratios are to the variant named ``reference``."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{result.search}: largest useful and largest stable {spelled_out(result.label)}",
        title_justify="left",
        collapse_padding=True,
        pad_edge=False,
    )
    longest = max(map(len, result.variants))
    for heading in result_headings(result, reference):
        table.add_column(
            heading,
            justify="left" if heading in WORDS else "right",
            min_width=min(longest, _NAME) if heading == "variant" else None,
            overflow="fold",
        )
    for row in result_rows(result, reference):
        table.add_row(*row)
    table.caption, table.caption_justify = "\n".join(result_notes(result)), "left"
    return table


def result_headings(result: SearchResult, reference: str) -> list[str]:
    chances = ["P(>1)", *([] if result.claim is None else [f"P(>{result.claim:g})"])]
    return [
        "variant",
        f"max useful {result.label}",
        "useful 90%",
        "rung",
        f"max stable {result.label}",
        "stable 90%",
        *([_CHANGED] if _has_interventions(result) else []),
        *([f"ratio to {reference}", *chances] if reference in result.variants else []),
        "perplexity" if result.in_nats else "final score",
        "rule that broke first",
        "trials (cut)",
        "of grid",
        "stopped by",
    ]


def result_rows(result: SearchResult, reference: str) -> list[list[str]]:
    """The cells under `result_headings`, a row a variant."""
    return [[name, *_cells(name, its, result, reference)] for name, its in result.variants.items()]


def result_notes(result: SearchResult) -> list[str]:
    """What the table's cells are too small for, a line each."""
    return [
        *_meaning(result),
        *_shared_notes(result),
        *(note for name, its in result.variants.items() for note in _notes(name, its, result)),
    ]


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """What an edge depends on beside the variant, in one line."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in recipe.items()
        if value is not None
    )


def ratio_to(name: str, result: SearchResult, reference: str) -> Ratio | None:
    """A variant's ratio to the variant ``reference``, without an interval where the search compared with
    another one; None where there is no number.
    """
    its, unit = result.variants[name], result.variants[reference]
    if its.ratio is not None and its.ratio.to == reference:
        return its.ratio
    pairs = ((its.max_useful_lr, unit.max_useful_lr), (its.max_stable_lr, unit.max_stable_lr))
    useful, stable = (None if a is None or b is None else a / b for a, b in pairs)
    return None if useful is None and stable is None else Ratio(reference, useful=useful, stable=stable)


def percent(chance: float | None) -> str:
    """A probability that never reads as certain."""
    if chance is None:
        return _UNKNOWN
    return ">99%" if chance > 0.99 else "<1%" if chance < 0.01 else f"{chance:.0%}"


def _cells(name: str, its: VariantResult, result: SearchResult, reference: str) -> list[str]:
    useful = _edge(its.max_useful_lr, its.censored, result.ladder)
    return [
        "open" if its.open and useful == _UNKNOWN else useful,
        _span(its.max_useful_lr_90),
        _number(its.max_useful_rung, "g"),
        _edge(its.max_stable_lr, its.stable_censored, result.ladder),
        _span(its.max_stable_lr_90),
        *([_interventions(its)] if _has_interventions(result) else []),
        *(_ratio_cells(name, result, reference) if reference in result.variants else []),
        _number(its.val_perplexity, ".2f") if result.in_nats else _number(its.val_loss, ".4g"),
        its.first_diverged_reason or _UNKNOWN,
        f"{its.trials} ({its.cut})" if its.cut else str(its.trials),
        f"{its.optimizer_steps / its.grid_steps:.0%}" if its.grid_steps else _UNKNOWN,
        its.stopped or _UNKNOWN,
    ]


def _edge(edge: float | None, censored: str | None, ladder: Sequence[float]) -> str:
    if censored is not None:
        return f"≥ {ladder[-1]:g}" if censored == "above" else f"< {ladder[0]:g}"
    return _number(edge, ".3g")


def _has_interventions(result: SearchResult) -> bool:
    return any(its.interventions for its in result.variants.values())


def _interventions(its: VariantResult) -> str:
    return ", ".join(f"{name} {count}" for name, count in its.interventions.items()) or _UNKNOWN


def _ratio_cells(name: str, result: SearchResult, reference: str) -> list[str]:
    columns = 2 if result.claim is None else 3
    ratio = None if name == reference else ratio_to(name, result, reference)
    if ratio is None or ratio.useful is None:
        return ["1" if name == reference else _UNKNOWN, *[_UNKNOWN] * (columns - 1)]
    shown = f"{ratio.useful:.2f}" + ("" if ratio.useful_90 is None else f" ({span(ratio.useful_90)})")
    return [shown, percent(ratio.useful_chance), percent(ratio.useful_claim_chance)][:columns]


def _span(interval: Interval | None) -> str:
    return _UNKNOWN if interval is None else span(interval)


def _number(value: float | None, form: str) -> str:
    return _UNKNOWN if value is None else f"{value:{form}}"


def _meaning(result: SearchResult) -> Iterator[str]:
    """What the two numbers are."""
    if result.version < VERSION:
        yield (
            f"Old form (version {result.version}): a rung is the largest below the first one that diverged, "
            "or that ended 0.25 nats above a smaller one. There are no points on a curve."
        )
        return
    other = {"useful": "stable", "stable": "useful"}.get(result.criterion)
    yield (
        f"Useful: less than {result.lost_share:.0%} is lost of what the best smaller {result.label} learned. "
        "Stable: fewer than half of the seeds diverge."
        + (f" The search looked for the {result.criterion} edge; its runs tell the other." if other else "")
    )
    if result.recipe:
        yield f"Recipe: {recipe_text(result.recipe)}."


def _shared_notes(result: SearchResult) -> Iterator[str]:
    """Those that have a few words for each variant."""
    known = result.variants.items()
    if result.seeds == 1 and any(its.max_useful_lr_90 for _, its in known):
        yield "One seed: the intervals rest on a prior of how much seeds differ."
    decay = [
        f"{name} {100 * its.decay_per_step:.2g}% ({1 / its.decay_per_step:.0f} steps)"
        for name, its in known
        if its.decay_per_step
    ]
    if decay:
        yield (
            "At the useful edge, weight decay takes this share off the weights each step, which limits their "
            f"memory: {', '.join(decay)}."
        )
    if _has_interventions(result):
        yield (
            f"{_CHANGED.capitalize()}: skipped or clipped by what can hide divergence, in runs that ended "
            "by themselves. The edges beside it hold with it."
        )
    gains = [f"{name} {its.next_gain - 1:.0%}" for name, its in known if its.next_gain is not None]
    if gains:
        yield f"One more run would narrow the interval by about: {', '.join(gains)}."
    doubts = [f"{name} {its.doubtful:.0%}" for name, its in known if its.doubtful]
    if doubts:
        yield f"Share of the runs that may be on either side of the useful edge: {', '.join(doubts)}."


def _notes(name: str, its: VariantResult, result: SearchResult) -> Iterator[str]:
    label = result.label
    if its.censored == "below" and its.first_diverged_reason == "no_learning":
        yield f"{name}: the smallest {label} learned nothing: it may be too small for so few steps."
    elif its.censored is not None:
        yield f"{name}: censored, the useful edge lies {its.censored} every {label} that was tried."
    if its.stable_censored is not None:
        yield f"{name}: censored, the stable edge lies {its.stable_censored} every {label} that was tried."
    if its.open:
        crashed = ", ".join(f"{value:g}" for value in its.open)
        yield f"{name}: runs at {crashed} crashed too often and were left open."
