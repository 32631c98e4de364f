"""What the search cost, and how fast its runs trained."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from redline import metrics
from redline.report.blocks import DASH, Section, Table
from redline.report.search import Run, Search, Variant, finite

_HEADINGS = (
    "variant",
    "runs",
    "optimizer steps",
    "grid",
    "of grid",
    "seconds of training",
    "ms a step",  # start and validation included
    "seconds passed",
)
_SPEED = {  # heading: metric of a run, and its form
    "tokens a second": (metrics.TOKENS_PER_SECOND, "{:.0f}"),
    "FLOP a second": (metrics.FLOPS_PER_SECOND, "{:.3g}"),
    "of the device's peak": (metrics.UTILISATION, "{:.0%}"),  # where that is known
    "time in data": (metrics.IN_DATA, "{:.1%}"),
    "in taps": (metrics.IN_TAPS, "{:.1%}"),
    "in checkpoints": (metrics.IN_CHECKPOINTS, "{:.1%}"),
}


def sections(search: Search, reference: str) -> Iterator[Section]:
    spent = [(_runs(variant), _steps(variant), _grid(search, variant)) for variant in search.variants]
    rows = [
        [variant.name, *_cells(*its, variant.runs)]
        for variant, its in zip(search.variants, spent, strict=True)
    ]
    if len(rows) > 1:
        runs, steps, grid = map(sum, zip(*spent, strict=True))
        rows.append(["all", *_cells(runs, steps, grid, search.runs)])
    tables = [Table("cost", _HEADINGS, rows, ("variant",))]
    if speeds := [row for variant in search.variants if (row := _speed(variant)) is not None]:
        tables.append(Table("speed", ("variant", *_SPEED), speeds, ("variant",)))
    yield Section("cost", "What the search cost", tables)


def _speed(variant: Variant) -> list[str] | None:
    """The mean over its runs that logged it; None where none did."""
    logged = [run.tracked.metrics for run in variant.finished_runs]
    found = [finite(its.get(metric) for its in logged) for metric, _ in _SPEED.values()]
    if not found[0]:
        return None
    forms = [form for _, form in _SPEED.values()]
    cells = [form.format(fmean(its)) if its else DASH for its, form in zip(found, forms, strict=True)]
    return [variant.name, *cells]


def _runs(variant: Variant) -> int:
    return len(variant.finished_runs) if variant.result is None else variant.result.trials


def _steps(variant: Variant) -> int:
    if variant.result is not None:
        return variant.result.optimizer_steps
    return sum(map(_steps_of_run, variant.runs))


def _grid(search: Search, variant: Variant) -> int:
    if variant.result is not None:
        return variant.result.grid_steps
    longest = max(map(_steps_of_run, variant.runs), default=0)
    return len(search.ladder) * search.seeds * (variant.facts.max_steps or longest)


def _steps_of_run(run: Run) -> int:
    return (run.last_step or 0) if run.outcome is None else run.outcome.optimizer_steps


def _cells(runs: int, steps: int, grid: int, timed: Sequence[Run]) -> list[str]:
    trained = [(run.seconds, _steps_of_run(run)) for run in timed if run.seconds]
    seconds, trained_steps = map(sum, zip(*trained, strict=True)) if trained else (0, 0)
    started = [run.started for run in timed if run.started is not None]
    ended = [run.ended for run in timed if run.ended is not None]
    passed = f"{(max(ended) - min(started)).total_seconds():.0f}" if started and ended else DASH
    share = f"{steps / grid:.0%}" if grid else DASH
    of_training = f"{seconds:.0f}" if trained else DASH
    of_step = f"{1000 * seconds / trained_steps:.0f}" if trained_steps else DASH
    return [str(runs), str(steps), str(grid), share, of_training, of_step, passed]
