"""What a search will cost, before it is run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from redline.search.policy.speculation import runs_to_go
from redline.search.policy.state import Question
from redline.search.policy.verdicts import Bracket


@dataclass(frozen=True)
class Cost:
    """Of one variant: ``expected`` runs over every place the edge may have, if seeds agree; ``grid`` is the
    whole grid's.
    """

    expected: float
    fewest: int
    most: int
    grid: int


def expected_cost(question: Question, *, hinted: bool = False) -> Cost:
    """``hinted``: short runs have found the edge."""
    rungs = len(question.ladder)
    runs = [
        runs_to_go(question.policy(hint=Bracket(edge - 1, edge) if hinted else None), {}, edge)
        for edge in range(rungs + 1)
    ]
    return Cost(fmean(runs), min(runs), max(runs), rungs * question.seeds)


def cost_text(lengths: Mapping[str, int | None], question: Question, short_run_steps: int | None) -> str:
    """The ladder, the variants, and the runs and steps to expect, for a reader.

    ``lengths``: variant -> steps of a run, None where they are not known. Steps are counted as if no run
    ended early.
    """
    cost = expected_cost(question, hinted=short_run_steps is not None)
    short_runs = expected_cost(replace(question, seeds=1)).expected if short_run_steps else 0.0
    lines = [
        f"ladder: {', '.join(f'{value:g}' for value in question.ladder)} ({len(question.ladder)} rungs)",
        f"seeds: {question.seeds}, vote: {question.vote}",
    ]
    steps = grid_steps = 0.0
    for name, length in lengths.items():
        steps += cost.expected * (length or 0) + short_runs * (short_run_steps or 0)
        grid_steps += cost.grid * (length or 0)
        short = f" and about {short_runs:.1f} short runs of {short_run_steps}" if short_run_steps else ""
        lines.append(
            f"{name}: about {cost.expected:.1f} runs{f' of {length} steps' if length else ''} "
            f"({cost.fewest} to {cost.most}, if seeds agree){short}; the grid: {cost.grid} runs"
        )
    if grid_steps:
        lines.append(
            f"together about {steps:.0f} optimizer steps, the grid {grid_steps:.0f}: "
            f"{steps / grid_steps:.0%}; runs that diverge early cost less; seeds that disagree, and doubts "
            "whether a rung is degraded, cost more"
        )
    return "\n".join(lines)
