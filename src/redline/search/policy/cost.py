"""What a search will cost, before it is run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from redline.search.policy.speculation import runs_to_go
from redline.search.policy.state import Question
from redline.search.policy.verdicts import Bracket
from redline.search.variant import Variant


@dataclass(frozen=True)
class Cost:
    """Of one variant: ``expected`` runs over every place the edge may have, if seeds agree; ``grid`` is the
    whole grid's.
    """

    expected: float
    fewest: int
    most: int
    grid: int


def expected_cost(question: Question, *, scouted: bool = False) -> Cost:
    """``scouted``: the edge is where the scouts found it."""
    rungs = len(question.ladder)
    runs = [
        runs_to_go(question.policy(hint=Bracket(edge - 1, edge) if scouted else None), {}, edge)
        for edge in range(rungs + 1)
    ]
    return Cost(fmean(runs), min(runs), max(runs), rungs * question.seeds)


def cost_text(variants: Sequence[Variant], question: Question, scout_steps: int | None) -> str:
    """The ladder, the variants, and the runs and steps to expect, for a reader.

    Steps are counted as if no run ended early.
    """
    cost = expected_cost(question, scouted=scout_steps is not None)
    scouts = expected_cost(replace(question, seeds=1)).expected if scout_steps else 0.0
    lines = [
        f"ladder: {', '.join(f'{lr:g}' for lr in question.ladder)} ({len(question.ladder)} rungs)",
        f"seeds: {question.seeds}, vote: {question.vote}",
    ]
    steps = grid_steps = 0.0
    for variant in variants:
        length = variant.cfg.trainer.max_steps
        steps += cost.expected * length + scouts * (scout_steps or 0)
        grid_steps += cost.grid * length
        short = f" and about {scouts:.1f} scouts of {scout_steps}" if scout_steps else ""
        lines.append(
            f"{variant.name}: about {cost.expected:.1f} runs of {length} steps "
            f"({cost.fewest} to {cost.most}, if seeds agree){short}; the grid: {cost.grid} runs"
        )
    lines.append(
        f"together about {steps:.0f} optimizer steps, the grid {grid_steps:.0f}: {steps / grid_steps:.0%}; "
        "runs that diverge early cost less, seeds that disagree and rule 5's doubts cost more"
    )
    return "\n".join(lines)
