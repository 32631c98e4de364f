"""What the search cost."""

from collections.abc import Sequence

from redline.report.blocks import DASH, Section, Table
from redline.report.search import Run, Search, Variant

_READING = (
    "Optimizer steps are those of all runs, short runs and cancelled speculative runs included; the grid is "
    "every rung and every seed at full length. Seconds of training are summed over runs, so with several "
    "workers they exceed the time that passed, which is from the first run's start to the last one's end and "
    "counts breaks."
)
_HEADINGS = ("variant", "runs", "optimizer steps", "grid", "of grid", "seconds of training", "seconds passed")


def section(search: Search, reference: str) -> Section:
    spent = [(_runs(variant), _steps(variant), _grid(search, variant)) for variant in search.variants]
    rows = [
        [variant.name, *_cells(*its, variant.runs)]
        for variant, its in zip(search.variants, spent, strict=True)
    ]
    if len(rows) > 1:
        runs, steps, grid = map(sum, zip(*spent, strict=True))
        rows.append(["all", *_cells(runs, steps, grid, search.runs)])
    return Section("cost", "What the search cost", _READING, [Table("cost", _HEADINGS, rows, ("variant",))])


def _runs(variant: Variant) -> int:
    return len(variant.finished_runs) if variant.result is None else variant.result.trials


def _steps(variant: Variant) -> int:
    if variant.result is not None:
        return variant.result.optimizer_steps
    return sum(run.optimizer_steps for run in variant.runs)


def _grid(search: Search, variant: Variant) -> int:
    if variant.result is not None:
        return variant.result.grid_steps
    longest = max((run.optimizer_steps for run in variant.runs), default=0)
    return len(search.ladder) * search.seeds * (variant.facts.max_steps or longest)


def _cells(runs: int, steps: int, grid: int, timed: Sequence[Run]) -> list[str]:
    trained = [run.seconds for run in timed if run.seconds]
    started = [run.started for run in timed if run.started is not None]
    ended = [run.ended for run in timed if run.ended is not None]
    passed = f"{(max(ended) - min(started)).total_seconds():.0f}" if started and ended else DASH
    share = f"{steps / grid:.0%}" if grid else DASH
    return [str(runs), str(steps), str(grid), share, f"{sum(trained):.0f}" if trained else DASH, passed]
