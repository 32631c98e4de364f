"""Every run, for whoever wants to look one up."""

from redline.report.blocks import DASH, Fold, Section, Table, number
from redline.report.search import Run, Search, Variant

ORDER = 100

_READING = (
    "Every run with its verdict. The rule is the one that broke: non_finite (loss or gradient NaN or "
    "infinite), blow_up (the loss stays above that at initialisation), no_return (it rose and did not come "
    "back), no_learning (it ends no better than guessing by word frequency), degraded (it ends clearly above "
    "a smaller LR of the same seed)."
)
_HEADINGS = (
    "variant",
    "LR",
    "seed",
    "verdict",
    "rule",
    "step",
    "validation loss",
    "perplexity",
    "seconds",
    "MLflow run",
)


def section(search: Search, reference: str) -> Section:
    rows = [_row(variant, run) for variant in search.variants for run in variant.runs]
    words = ("variant", "verdict", "rule", "MLflow run")
    fold = Fold(f"{len(rows)} runs", [Table("runs", _HEADINGS, rows, words)])
    return Section("runs", "All runs", _READING, [fold])


def _row(variant: Variant, run: Run) -> list[str]:
    return [
        variant.name,
        f"{run.lr:g}",
        str(run.seed),
        run.verdict,
        run.reason or DASH,
        number(run.step, "d"),
        number(run.val_loss, ".4f"),
        number(run.val_perplexity, ".2f"),
        number(run.seconds, ".0f"),
        run.run_id or DASH,
    ]
