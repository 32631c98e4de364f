"""A search as plain data: variants, their runs, and what each run's curves are read with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

State = Literal["stable", "diverged", "running", "crashed"]


class Curve(NamedTuple):
    """A metric over a run, in order of step. Values may be NaN or infinite."""

    steps: np.ndarray  # (n,) integers
    values: np.ndarray  # (n,) floats

    @classmethod
    def of(cls, points: Mapping[int, float]) -> "Curve":
        steps = sorted(points)
        return cls(np.array(steps, dtype=int), np.array([points[step] for step in steps], dtype=float))

    @property
    def is_finite(self) -> np.ndarray:
        return np.isfinite(self.values)


class Curves(Protocol):
    """Where runs' curves come from."""

    trouble: str | None  # why there are none, or not all; None where all is well

    def run_id(self, search: str, run_key: str) -> str | None: ...

    def metrics(self, run_id: str) -> frozenset[str]: ...

    def history(self, run_id: str, metric: str) -> Curve: ...

    def parameters(self, run_id: str) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Run:
    """One point of a search: an LR and a seed. Losses in nats per token.

    ``verdict`` is the search's, rule 5 included, or how far the run is. ``step`` (counted from 0) is the one
    at which a rule broke, else the last one. What a run has not reached is None.
    """

    lr: float
    seed: int
    verdict: State
    reason: str | None
    step: int | None
    optimizer_steps: int
    train_loss: float | None
    val_loss: float | None
    val_perplexity: float | None
    initial_loss: float | None
    seconds: float | None
    run_id: str | None
    started: datetime | None
    ended: datetime | None
    curves: Curves = field(repr=False, compare=False)

    @property
    def finished(self) -> bool:
        return self.verdict in ("stable", "diverged")

    @property
    def has_loss(self) -> bool:
        return self.val_loss is not None and math.isfinite(self.val_loss)

    @property
    def metrics(self) -> frozenset[str]:
        """Names of what was logged; read from the tracker at every call."""
        return frozenset() if self.run_id is None else self.curves.metrics(self.run_id)

    def history(self, metric: str) -> Curve:
        """A metric's curve, read when it is first asked for; empty where it was not logged."""
        return Curve.of({}) if self.run_id is None else self.curves.history(self.run_id, metric)

    @property
    def parameters(self) -> Mapping[str, str]:
        """The resolved configuration, as in ``model/width``."""
        return {} if self.run_id is None else self.curves.parameters(self.run_id)


@dataclass(frozen=True)
class Variant:
    """``entry`` is the variant's part of ``result.json``; None before the search's end."""

    name: str
    max_steps: int
    precision: str
    runs: tuple[Run, ...]  # by LR, then seed
    max_stable_lr: float | None
    first_diverged_lr: float | None
    entry: Mapping[str, Any] | None

    @property
    def norm(self) -> str:
        """The norm strategy; further keys that the search varied follow it in ``name``."""
        return self.name.partition(", ")[0]

    @cached_property
    def finished_runs(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.finished)

    @cached_property
    def pair(self) -> "Pair":
        """See `Pair`."""
        return pair(self.finished_runs, self.max_stable_lr, self.first_diverged_lr)

    def by_lr(self) -> dict[float, list[Run]]:
        """LR -> its finished runs, a run a seed."""
        found: dict[float, list[Run]] = {}
        for run in self.finished_runs:
            found.setdefault(run.lr, []).append(run)
        return found


class Pair(NamedTuple):
    """The run at the edge and the one just above it, of the same seed where there is one."""

    stable: Run | None
    diverged: Run | None


def pair(runs: tuple[Run, ...], max_stable_lr: float | None, first_diverged_lr: float | None) -> Pair:
    """Where the edge is not known, the largest stable LR below the smallest diverged one stands for it."""
    all_diverged = [run for run in runs if run.verdict == "diverged"]
    diverged = [run for run in all_diverged if run.lr == first_diverged_lr] or all_diverged[:1]
    ceiling = diverged[0].lr if diverged else math.inf
    all_stable = [run for run in runs if run.verdict == "stable" and run.lr < ceiling]
    stable = [run for run in all_stable if run.lr == max_stable_lr]
    if not stable and all_stable:
        stable = [run for run in all_stable if run.lr == all_stable[-1].lr]
    for its in stable:
        for other in diverged:
            if its.seed == other.seed:
                return Pair(its, other)
    return Pair(stable[0] if stable else None, diverged[0] if diverged else None)


@dataclass(frozen=True)
class Search:
    """``finished``: every variant has its entry of ``result.json``."""

    name: str
    ladder: tuple[float, ...]
    seeds: int
    variants: tuple[Variant, ...]
    finished: bool
    curves: Curves = field(repr=False, compare=False)

    @property
    def runs(self) -> list[Run]:
        return [run for variant in self.variants for run in variant.runs]

    def variant(self, name: str) -> Variant:
        """Raises KeyError, naming those there are."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(f"{name}: unknown variant; allowed: {', '.join(its.name for its in self.variants)}")
