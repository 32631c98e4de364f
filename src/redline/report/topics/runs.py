"""The table of all runs."""

from collections.abc import Callable, Iterator

from redline.report.blocks import DASH, Section, Table, number
from redline.report.search import Run, Search

_WORDS = ("variant", "verdict", "rule", "MLflow run")


def sections(search: Search, reference: str) -> Iterator[Section]:
    columns = _columns(search)
    rows = [[cell(run) for cell in columns.values()] for run in search.runs]
    table = Table("runs", list(columns), rows, _WORDS, fold=f"{len(rows)} runs")
    yield Section("runs", "All runs", [table])


def _columns(search: Search) -> dict[str, Callable[[Run], str]]:
    """Heading -> a run's cell; without columns that are empty for such a search."""
    columns: dict[str, Callable[[Run], str]] = {
        "variant": lambda run: run.variant,
        search.label: lambda run: f"{run.value:g}",
        "seed": lambda run: str(run.seed),
        "verdict": lambda run: run.verdict,
        "rule": lambda run: run.reason or DASH,
        "step": lambda run: number(run.step, "d"),
        search.loss_name: lambda run: number(run.val_loss, ".4f"),
    }
    if search.in_nats:
        columns["perplexity"] = lambda run: number(run.val_perplexity, ".2f")
    columns["seconds"] = lambda run: number(run.seconds, ".0f")
    if any(run.tracked.run_id for run in search.runs):
        columns["MLflow run"] = lambda run: run.tracked.run_id or DASH
    return columns
