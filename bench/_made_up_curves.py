"""Made-up variants whose edges are known: curves of the final loss over log LR, from other families than the
search's own model. Losses are lost shares: 0 the best, 1 the floor.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

STEPS = 250
_QUANTILES = (np.arange(60) + 0.5) / 60  # of seeds, by which the truth is averaged


@dataclass(frozen=True)
class Family:
    """``shape``: from log LR above the place where the loss begins to rise to the lost share of a run."""

    shape: Callable[[np.ndarray, random.Random], Callable[[np.ndarray], np.ndarray]] | None
    heavy: bool = False


def _hinge(luck: random.Random) -> Callable[[np.ndarray], np.ndarray]:
    """It falls in a line, turns at once, and rises in a line up to the floor."""
    fall, rise = luck.uniform(0.0, 0.15), luck.uniform(0.25, 1.2)
    return lambda x: np.where(x < 0, -fall * x, rise * x)


def _flat(luck: random.Random) -> Callable[[np.ndarray], np.ndarray]:
    """Flat at the bottom, then a parabola."""
    rise = luck.uniform(0.3, 2.0)
    return lambda x: rise * np.maximum(x, 0) ** 2


def _cliff(luck: random.Random) -> Callable[[np.ndarray], np.ndarray]:
    """A slow rise, then all is lost within a tenth."""
    slow, place = luck.uniform(0.0, 0.1), luck.uniform(0.3, 1.0)
    return lambda x: slow * np.maximum(x, 0) + 0.9 * np.clip((x - place) / 0.1, 0, 1)


def _wavy(luck: random.Random) -> Callable[[np.ndarray], np.ndarray]:
    """Not monotone: on its way up it falls back again."""
    rise, depth, phase = luck.uniform(0.25, 0.6), luck.uniform(0.03, 0.1), luck.uniform(0, 6.3)
    wave = luck.uniform(0.8, 1.6)
    return lambda x: rise * np.maximum(x, 0) + depth * np.sin(6.3 * x / wave + phase) * (x > -1)


def _steps(luck: random.Random) -> Callable[[np.ndarray], np.ndarray]:
    """A first rise to a plateau, then a second one, as where attention breaks before the rest."""
    first, apart = luck.uniform(0.12, 0.5), luck.uniform(0.7, 1.5)
    sharp = luck.uniform(0.1, 0.3)
    return lambda x: first / (1 + np.exp(-x / sharp)) + (1 - first) / (1 + np.exp(-(x - apart) / sharp))


def _heavy(luck: random.Random) -> Callable[[np.ndarray], np.ndarray]:
    """A rise like an arc, with noise of heavy tails."""
    width = luck.uniform(0.8, 2.0)
    return lambda x: np.sin(np.clip(x / width, 0, 1) * np.pi / 2) ** 1.5 + 0.05 * np.maximum(-x, 0)


FAMILIES: dict[str, Callable[[random.Random], Callable[[np.ndarray], np.ndarray]]] = {
    "hinge": _hinge,
    "flat": _flat,
    "cliff": _cliff,
    "wavy": _wavy,
    "steps": _steps,
    "heavy": _heavy,
}


@dataclass(frozen=True)
class MadeUp:
    """One variant. ``places``: logs of the lowest and the highest LR. Every search draws its own seeds."""

    family: str
    shape: Callable[[np.ndarray], np.ndarray]
    at: float  # log LR where the rise begins
    breaks_at: float  # log LR at which half of the seeds diverge
    spread: float  # of seeds along log LR, a standard deviation
    noise: float  # of a run, in lost shares
    low: float
    high: float

    def mean_curve(self, x: np.ndarray) -> np.ndarray:
        """Over all seeds; a diverged run has learned nothing."""
        shifts = self.spread * np.array([NormalDist().inv_cdf(q) for q in _QUANTILES])
        share = np.minimum(self.shape(x[:, None] - self.at - shifts), 1.0)
        # A seed that tolerates a larger LR diverges later too.
        return np.where(x[:, None] > self.breaks_at + shifts, 1.0, share).mean(axis=1)

    @cached_property
    def stable(self) -> float:
        """Log of the LR at which half of the seeds diverge: they blow up, or learn nothing."""
        x = np.linspace(self.low - 3, self.high + 4, 4000)
        diverged = (x > self.breaks_at) | (self.shape(x - self.at) >= 1)
        return float(x[np.argmax(diverged & (x > self.at))])

    @cached_property
    def useful(self) -> float:
        """Log of the LR at which a quarter is lost; NaN where that is not on the ladder."""
        x = np.linspace(self.low, self.high, 2000)
        mean = self.mean_curve(x)
        best = np.minimum.accumulate(mean)
        crossed = (mean - best) / (1 - best) >= 0.25
        return float(x[np.argmax(crossed)]) if crossed.any() else float("nan")


def made_up(family: str, luck: random.Random, low: float, high: float) -> MadeUp:
    """A variant whose edges lie on the ladder from ``low`` to ``high`` (logs), somewhere in its middle."""
    while True:
        at = luck.uniform(low + 0.5, high - 0.5)
        its = MadeUp(
            family,
            FAMILIES[family](luck),
            at,
            at + luck.uniform(0.3, 3.0),
            float(np.exp(luck.uniform(np.log(0.05), np.log(0.5)))),
            float(np.exp(luck.uniform(np.log(0.01), np.log(0.06)))),
            low,
            high,
        )
        if low + 0.7 < its.useful < high - 0.3:
            return its
