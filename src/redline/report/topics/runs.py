"""The table of all runs."""

from collections.abc import Callable

from redline.report.blocks import DASH, Fold, Section, Table, number
from redline.report.search import Run, Search, Variant

_READING = (
    "Every run with its verdict. The rule is the one that broke: non_finite (loss or gradient NaN or "
    "infinite), blow_up (the loss stays above that at initialisation), no_return (it rose and did not come "
    "back), no_learning (it ends no better than {guessing}), degraded (it ends clearly above a smaller "
    "{label} of the same seed)."
)
_WORDS = ("variant", "verdict", "rule", "MLflow run")


def section(search: Search, reference: str) -> Section:
    columns = _columns(search)
    rows = [
        [cell(variant, run) for cell in columns.values()]
        for variant in search.variants
        for run in variant.runs
    ]
    guessing = "guessing by word frequency" if search.in_nats else "a model that ignores its context"
    reading = _READING.format(label=search.label, guessing=guessing)
    return Section(
        "runs", "All runs", reading, [Fold(f"{len(rows)} runs", [Table("runs", list(columns), rows, _WORDS)])]
    )


def _columns(search: Search) -> dict[str, Callable[[Variant, Run], str]]:
    """Heading -> a run's cell; without columns that are empty for such a search."""
    columns: dict[str, Callable[[Variant, Run], str]] = {
        "variant": lambda variant, run: variant.name,
        search.label: lambda variant, run: f"{run.value:g}",
        "seed": lambda variant, run: str(run.seed),
        "verdict": lambda variant, run: run.verdict,
        "rule": lambda variant, run: run.reason or DASH,
        "step": lambda variant, run: number(run.step, "d"),
        search.loss_name: lambda variant, run: number(run.val_loss, ".4f"),
    }
    if search.in_nats:
        columns["perplexity"] = lambda variant, run: number(run.val_perplexity, ".2f")
    columns["seconds"] = lambda variant, run: number(run.seconds, ".0f")
    if any(run.run_id for run in search.runs):
        columns["MLflow run"] = lambda variant, run: run.run_id or DASH
    return columns
