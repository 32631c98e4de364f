"""What a search found, as plain numbers: the content of `result.json` and of the table."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from redline.files import atomic_write
from redline.search.policy.losses import finite_losses, mean_losses
from redline.search.policy.posterior import edge_interval
from redline.search.policy.verdicts import Point, Vote, bracket, rung_verdicts
from redline.stability import Outcome


def variant_result(
    outcomes: Mapping[Point, Outcome],
    verdicts: Mapping[Point, str | None],
    ladder: Sequence[float],
    *,
    seeds: int,
    vote: Vote,
    max_steps: int,
    given_up: Collection[Point] = (),
    scouts: Collection[Outcome] = (),
    cancelled_steps: int = 0,
) -> dict[str, Any]:
    """One variant's entry. The edge is the rung below the first diverged one.

    ``scouts`` and cancelled runs decide nothing; their steps are part of what the answer cost.

    ``max_stable_lr`` is an LR only where the ladder shows both ends of the bracket as neighbours:
    a censored search has no answer, nor has one with runs left open between the ends. ``max_stable_lr_90``
    is the interval that holds the edge with a probability of 90% (see `posterior`).
    """
    known = rung_verdicts(verdicts, len(ladder), seeds, vote)
    ends = bracket(known)
    censored = None
    if ends.stable == len(ladder) - 1:
        censored = "above"
    elif ends.diverged == 0:
        censored = "below"
    open_lrs = sorted({ladder[point.rung] for point in given_up if ends.stable < point.rung < ends.diverged})
    edge = None if censored or open_lrs else ends.stable
    first_diverged = None if ends.diverged == len(ladder) else ends.diverged
    reason, step = (None, None) if first_diverged is None else _broken(first_diverged, outcomes, verdicts)
    losses = mean_losses(outcomes)
    best = next(iter(losses), None)
    return {
        "max_stable_lr": None if edge is None else ladder[edge],
        "max_stable_lr_90": None if edge is None else edge_interval(_votes(ladder, verdicts), ladder),
        "first_diverged_lr": None if first_diverged is None else ladder[first_diverged],
        "censored": censored,
        "first_diverged_reason": reason,
        "first_diverged_step": step,
        "val_loss": None if edge is None else losses.get(edge),
        "val_losses": {} if edge is None else _by_seed(edge, outcomes),
        "val_perplexity": None if edge is None or edge not in losses else math.exp(losses[edge]),
        "best_lr": None if best is None else ladder[best],
        "best_val_loss": None if best is None else losses[best],
        "trials": len(outcomes),
        "scouts": len(scouts),
        "optimizer_steps": sum(outcome.optimizer_steps for outcome in [*outcomes.values(), *scouts])
        + cancelled_steps,
        "grid_steps": len(ladder) * seeds * max_steps,
        "stable_above": [
            ladder[r] for r, diverged in enumerate(known) if diverged is False and r > ends.diverged
        ],
        "open": open_lrs,
    }


def _votes(ladder: Sequence[float], verdicts: Mapping[Point, str | None]) -> list[tuple[float, bool]]:
    return [(ladder[point.rung], reason is not None) for point, reason in verdicts.items()]


def _by_seed(rung: int, outcomes: Mapping[Point, Outcome]) -> dict[str, float]:
    """Seed -> validation loss of a rung, in nats; of the seeds that the vote needed there."""
    found = finite_losses(outcomes)
    return {str(outcomes[point].seed): found[point] for point in sorted(found) if point.rung == rung}


def _broken(
    rung: int, outcomes: Mapping[Point, Outcome], verdicts: Mapping[Point, str | None]
) -> tuple[str | None, int | None]:
    """The rule that most seeds of a diverged rung broke, and the earliest step at which one of them did; None
    where its runs crashed and smaller rates alone say that it would diverge.

    For rules judged at a run's end that is its last step.
    """
    steps: dict[str, list[int]] = {}
    for point, reason in sorted(verdicts.items()):
        if point.rung == rung and reason is not None:
            steps.setdefault(reason, []).append(outcomes[point].step)
    if not steps:
        return None, None
    reason = max(steps, key=lambda its: len(steps[its]))
    return reason, min(steps[reason])


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write ``result.json`` so that a reader sees the old one or the new one, never half."""
    with atomic_write(path) as file:
        file.write((json.dumps(result, indent=2) + "\n").encode())
