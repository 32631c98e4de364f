"""What the search cost."""

from redline.report.blocks import DASH, Section, Table
from redline.report.search import Run, Search, Variant

ORDER = 90

_READING = (
    "Optimizer steps are those of all runs, short scouts and cancelled spare runs included; the grid is every"
    " rung and every seed at full length. Seconds of training are summed over runs, so with several workers "
    "they exceed the time that passed, which is from the first run's start to the last one's end and counts "
    "breaks."
)
_HEADINGS = ("variant", "runs", "optimizer steps", "grid", "of grid", "seconds of training", "seconds passed")


def section(search: Search, reference: str) -> Section:
    rows = [_row(search, variant) for variant in search.variants]
    if len(search.variants) > 1:
        rows.append(_total(search))
    return Section("cost", "What the search cost", _READING, [Table("cost", _HEADINGS, rows, ("variant",))])


def _row(search: Search, variant: Variant) -> list[str]:
    steps, grid = _steps(variant), _grid(search, variant)
    runs = len(variant.finished_runs) if variant.entry is None else variant.entry["trials"]
    return [
        variant.name,
        str(runs),
        str(steps),
        str(grid),
        f"{steps / grid:.0%}",
        *_times(list(variant.runs)),
    ]


def _total(search: Search) -> list[str]:
    steps = sum(map(_steps, search.variants))
    grid = sum(_grid(search, variant) for variant in search.variants)
    runs = sum(
        len(its.finished_runs) if its.entry is None else its.entry["trials"] for its in search.variants
    )
    return ["all", str(runs), str(steps), str(grid), f"{steps / grid:.0%}", *_times(search.runs)]


def _steps(variant: Variant) -> int:
    if variant.entry is not None:
        return variant.entry["optimizer_steps"]
    return sum(run.optimizer_steps for run in variant.runs)


def _grid(search: Search, variant: Variant) -> int:
    return len(search.ladder) * search.seeds * variant.max_steps


def _times(runs: list[Run]) -> list[str]:
    trained = [run.seconds for run in runs if run.seconds]
    started = [run.started for run in runs if run.started is not None]
    ended = [run.ended for run in runs if run.ended is not None]
    passed = f"{(max(ended) - min(started)).total_seconds():.0f}" if started and ended else DASH
    return [f"{sum(trained):.0f}" if trained else DASH, passed]
