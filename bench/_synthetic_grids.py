"""Grids of made-up outcomes beside the recorded one: the loss falls with LR, turns, rises, and blows up."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redline.search.policy.verdicts import Point
from redline.stability import Outcome

UNIGRAM = 5.5  # nats: a run that ends above it has learned nothing


@dataclass(frozen=True)
class Shape:
    """Of one variant. Rungs are of the ladder, slopes in nats a rung, noises in nats."""

    best: float  # rung
    fall: float
    rise: float
    blow_up: float  # rung
    noise: float  # of a run
    spread: float  # of a seed's best rung and blow-up, in rungs


def _anywhere(luck: random.Random, rungs: int) -> Shape:
    return Shape(
        luck.uniform(0, rungs - 3),
        luck.uniform(0, 0.08),
        luck.uniform(0.1, 0.3),
        luck.uniform(rungs - 3, rungs + 2),
        luck.uniform(0.02, 0.05),
        0.4,
    )


def _noisy(luck: random.Random, rungs: int) -> Shape:
    """Slow to rise and loud: seeds disagree, and a rung above the edge may be stable again."""
    return Shape(
        luck.uniform(0, rungs - 3), luck.uniform(0, 0.08), luck.uniform(0.05, 0.12), rungs + 2, 0.1, 0.8
    )


def _low(luck: random.Random, rungs: int) -> Shape:
    """The edge at the ladder's foot."""
    return Shape(luck.uniform(-2, 0), 0.0, luck.uniform(0.15, 0.4), rungs - 2, 0.04, 0.4)


def _high(luck: random.Random, rungs: int) -> Shape:
    """No edge but a blow-up, at the ladder's top or beyond it."""
    return Shape(luck.uniform(rungs - 5, rungs), 0.06, 0.05, luck.uniform(rungs - 2, rungs + 1), 0.04, 0.4)


KINDS: dict[str, Callable[[random.Random, int], Shape]] = {
    "anywhere": _anywhere,
    "noisy": _noisy,
    "low": _low,
    "high": _high,
}


def synthetic_grid(
    kind: str, luck: random.Random, ladder: Sequence[float], seeds: int, steps: int
) -> dict[Point, Outcome]:
    shape = KINDS[kind](luck, len(ladder))
    grid = {}
    for seed in range(seeds):
        offset = luck.gauss(0, 0.03)
        best, blow_up = (rung + luck.gauss(0, shape.spread) for rung in (shape.best, shape.blow_up))
        for rung, lr in enumerate(ladder):
            slope = shape.rise if rung > best else shape.fall
            loss = 4.3 + offset + slope * abs(rung - best) + luck.gauss(0, shape.noise)
            reason = "blow_up" if rung >= blow_up else "no_learning" if loss > UNIGRAM else None
            ended_early = reason == "blow_up"
            taken = round(steps * luck.uniform(0.2, 0.5)) if ended_early else steps
            val_loss = None if ended_early else loss
            grid[Point(rung, seed)] = Outcome(lr, seed, reason, taken - 1, taken, val_loss, 7.0, 7.0)
    return grid
