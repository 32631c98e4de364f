"""What follows from a variant's outcomes: the numbers of its result."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from redline.search.policy.posterior import edge_interval
from redline.search.policy.state import SearchState
from redline.search.policy.verdicts import Bracket, Point, finite_losses, mean_losses
from redline.search.result import VariantResult
from redline.search.trainable import Facts
from redline.stability import Outcome


def variant_result(
    state: SearchState,
    facts: Facts,
    *,
    short_runs: Collection[Outcome] = (),
    cancelled_steps: int = 0,
) -> VariantResult:
    """One variant's result. The edge is the rung below the first diverged one.

    ``short_runs`` and cancelled runs decide nothing; their steps are part of what the answer cost.
    ``max_useful_lr_90`` is the interval that holds the edge with a probability of 90% (see `posterior`).
    """
    ladder, outcomes, ends = state.question.ladder, state.outcomes, state.ends
    censored = _censored(ends, len(ladder))
    left_open = {point.rung for point in state.given_up if ends.stable < point.rung < ends.diverged}
    edge = None if censored or left_open else ends.stable
    first_diverged = None if ends.diverged == len(ladder) else ends.diverged
    reason, step = (None, None) if first_diverged is None else _broken(first_diverged, state)
    losses = mean_losses(outcomes)
    best = next(iter(losses), None)
    length = facts.max_steps or max((its.optimizer_steps for its in outcomes.values()), default=0)
    return VariantResult(
        max_useful_lr=None if edge is None else ladder[edge],
        max_useful_lr_90=None if edge is None else edge_interval(_votes(state), ladder),
        max_useful_rung=None if edge is None else ladder[edge],
        max_stable_lr=None,
        max_stable_lr_90=None,
        max_stable_rung=None,
        first_diverged_lr=None if first_diverged is None else ladder[first_diverged],
        censored=censored,
        first_diverged_reason=reason,
        first_diverged_step=step,
        val_loss=None if edge is None else losses.get(edge),
        val_losses={} if edge is None else _by_seed(edge, outcomes),
        val_perplexity=None if edge is None or edge not in losses else _perplexity(losses[edge], outcomes),
        best_lr=None if best is None else ladder[best],
        best_val_loss=None if best is None else losses[best],
        trials=len(outcomes),
        short_runs=len(short_runs),
        optimizer_steps=sum(outcome.optimizer_steps for outcome in [*outcomes.values(), *short_runs])
        + cancelled_steps,
        grid_steps=len(ladder) * state.question.seeds * length,
        open=_values(ladder, left_open),
        max_steps=facts.max_steps,
        parameters=facts.parameters,
        tokens_per_step=facts.tokens_per_step,
        precision=facts.precision,
    )


def _censored(ends: Bracket, rungs: int) -> Literal["above", "below"] | None:
    if ends.stable == rungs - 1:
        return "above"
    return "below" if ends.diverged == 0 else None


def _values(ladder: Sequence[float], rungs: Iterable[int]) -> tuple[float, ...]:
    return tuple(ladder[rung] for rung in sorted(rungs))


def _votes(state: SearchState) -> list[tuple[float, bool]]:
    ladder = state.question.ladder
    return [(ladder[point.rung], reason is not None) for point, reason in state.verdicts.items()]


def _perplexity(loss: float, outcomes: Mapping[Point, Outcome]) -> float | None:
    """exp of the mean loss, where the runs speak of perplexity: the score is then nats per token."""
    return math.exp(loss) if any("perplexity" in its.numbers for its in outcomes.values()) else None


def _by_seed(rung: int, outcomes: Mapping[Point, Outcome]) -> dict[str, float]:
    """Seed -> final score at a rung; of the seeds that the vote needed there."""
    found = finite_losses(outcomes)
    return {str(outcomes[point].seed): found[point] for point in sorted(found) if point.rung == rung}


def _broken(rung: int, state: SearchState) -> tuple[str | None, int | None]:
    """The rule that most seeds of a diverged rung broke, and the earliest step at which one of them did; None
    where its runs crashed and smaller rungs alone say that it would diverge.

    For rules judged at a run's end that is its last step.
    """
    steps: dict[str, list[int]] = {}
    for point, reason in sorted(state.verdicts.items()):
        if point.rung == rung and reason is not None:
            steps.setdefault(reason, []).append(state.outcomes[point].step)
    if not steps:
        return None, None
    reason = max(steps, key=lambda its: len(steps[its]))
    return reason, min(steps[reason])
