"""What a search will cost, before it is run: made-up variants are searched."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from redline.search.policy.points import Point
from redline.search.policy.question import Question
from redline.search.policy.state import search_state
from redline.stability import Outcome

# Of the made-up edges on the ladder, from its low end (0) to its high one (1).
_PLACES = (0.125, 0.375, 0.625, 0.875)
_WIDTH = 0.3  # of a made-up curve's rise, in log LR
_BREAKS = 1.5  # in log LR above the edge: where a made-up run diverges
_LONGEST = 40  # runs
_STEPS = 100  # of a made-up run


@dataclass(frozen=True)
class Cost:
    """Of one variant: ``expected`` runs if seeds agree, the fewest, the most, and the whole grid's."""

    expected: float
    fewest: int
    most: int
    grid: int


def expected_cost(question: Question, *, hinted: bool = False) -> Cost:
    """``hinted``: short runs have found the edge."""
    low, high = math.log(question.ladder[0]), math.log(question.ladder[-1])
    edges = [math.exp(low + place * (high - low)) for place in _PLACES]
    runs = [_runs(question, edge, (edge,) if hinted else ()) for edge in edges]
    return Cost(fmean(runs), min(runs), max(runs), len(question.ladder) * question.seeds)


def _runs(question: Question, edge: float, hints: tuple[float, ...]) -> int:
    """How many a variant needs whose curve rises from 0 to 1 and is a quarter at ``edge``."""
    outcomes: dict[Point, Outcome] = {}
    while len(outcomes) < _LONGEST:
        state = search_state(question, outcomes, hints=hints, max_steps=_STEPS)
        if state.answered or not state.next:
            break
        for point in state.next:
            outcomes[point] = _outcome(question.values[point.rung], point.seed, edge)
    return len(outcomes)


def _outcome(value: float, seed: int, edge: float) -> Outcome:
    above = math.log(value / edge)
    diverged = above > _BREAKS
    loss = None if diverged else 1 / (1 + 3 * math.exp(-max(above, -100 * _WIDTH) / _WIDTH))
    return Outcome(
        value,
        seed,
        reason="blow_up" if diverged else None,
        step=_STEPS - 1,
        optimizer_steps=_STEPS,
        val_loss=loss,
        initial_loss=1.0,
        train_loss=1.0,
    )


def cost_text(
    lengths: Mapping[str, int | None],
    question: Question,
    short: Question | None = None,
    short_run_steps: int | None = None,
) -> str:
    """The ladder, the variants, and the runs and steps to expect, for a reader.

    ``lengths``: variant -> steps of a run, None where they are not known. ``short``: what is asked of short
    runs. Steps are counted as if no run ended early.
    """
    cost = expected_cost(question, hinted=short is not None)
    short_runs = expected_cost(short).expected if short else 0.0
    lines = [
        f"ladder: {', '.join(f'{value:g}' for value in question.ladder)} ({len(question.ladder)} rungs)",
        f"seeds: {question.seeds}, criterion: {question.criterion}",
        _stopping(question),
    ]
    steps = grid_steps = 0.0
    for name, length in lengths.items():
        steps += cost.expected * (length or 0) + short_runs * (short_run_steps or 0)
        grid_steps += cost.grid * (length or 0)
        first = f" and about {short_runs:.1f} short runs of {short_run_steps}" if short else ""
        lines.append(
            f"{name}: about {cost.expected:.1f} runs{f' of {length} steps' if length else ''} "
            f"({cost.fewest} to {cost.most}, on made-up curves){first}; the grid: {cost.grid} runs"
        )
    if grid_steps:
        lines.append(
            f"together about {steps:.0f} optimizer steps, the grid {grid_steps:.0f}: "
            f"{steps / grid_steps:.0%}; runs that diverge or are cut cost less; seeds that disagree cost more"
        )
    return "\n".join(lines)


def _stopping(question: Question) -> str:
    budget = "" if question.budget is None else f", or {question.budget:g} full runs are spent (budget)"
    return (
        f"a variant is answered when its interval's upper end is at most {question.resolution:g} times its "
        "lower one (resolution), or one more run would narrow that by less than a factor "
        f"{question.settled:g} (settled){budget}"
    )
