"""A search as plain data: variants, their runs, and what each run's curves are read with."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from redline.search.result import SearchResult, VariantResult, spelled_out
from redline.search.store.record import State
from redline.search.trainable import Facts


def finite(values: Iterable[float | None]) -> list[float]:
    """Those that are finite numbers."""
    return [value for value in values if value is not None and math.isfinite(value)]


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


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker holds of a run. ``history`` asks it for a metric's curve, empty where it has none."""

    run_id: str | None
    metrics: frozenset[str]
    parameters: Mapping[str, str]
    history: Callable[[str], Curve] = field(repr=False, compare=False)


UNTRACKED = TrackedRun(None, frozenset(), {}, lambda metric: Curve.of({}))


class Curves(Protocol):
    """Where runs' curves come from."""

    @property
    def trouble(self) -> str | None:
        """Why there are none, or not all; None where all is well."""

    def find(self, search: str, variant: str, number: int) -> TrackedRun:
        """The run of a trial; `UNTRACKED` where there is none."""


@dataclass(frozen=True)
class Run:
    """One point of a search: a value of what is searched, and a seed.

    ``verdict`` is the search's by all that is known now, or how far the run is. ``step`` (counted from 0) is
    the one at which a rule broke, else the last one. ``val_loss`` is the final score, in nats per token where
    `Search.in_nats`. What a run has not reached is None.
    """

    search: str
    variant: str
    number: int  # of the trial
    value: float
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
    started: datetime | None
    ended: datetime | None
    curves: Curves = field(repr=False, compare=False)

    @property
    def finished(self) -> bool:
        return self.verdict in ("stable", "diverged")

    @property
    def has_loss(self) -> bool:
        return bool(finite([self.val_loss]))

    @cached_property
    def _tracked(self) -> TrackedRun:
        return self.curves.find(self.search, self.variant, self.number)

    @property
    def run_id(self) -> str | None:
        """The tracker's."""
        return self._tracked.run_id

    @property
    def metrics(self) -> frozenset[str]:
        """Names of what was logged."""
        return self._tracked.metrics

    @property
    def parameters(self) -> Mapping[str, str]:
        """The resolved configuration, as in ``model/width``."""
        return self._tracked.parameters

    def history(self, metric: str) -> Curve:
        """A metric's curve, read when it is first asked for; empty where it was not logged."""
        return self._tracked.history(metric)


@dataclass(frozen=True)
class Variant:
    """``result`` is None before the search's end; the edge is then what is known of it so far."""

    name: str
    facts: Facts
    runs: tuple[Run, ...]  # by value, then seed
    max_stable_lr: float | None
    first_diverged_lr: float | None
    result: VariantResult | None

    @cached_property
    def finished_runs(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.finished)

    @cached_property
    def pair(self) -> "Pair":
        """See `Pair`."""
        return pair(self.finished_runs, self.max_stable_lr, self.first_diverged_lr)

    def by_value(self) -> dict[float, list[Run]]:
        """Value -> its finished runs, a run a seed."""
        found: dict[float, list[Run]] = {}
        for run in self.finished_runs:
            found.setdefault(run.value, []).append(run)
        return found


class Pair(NamedTuple):
    """The run at the edge and the one just above it, of the same seed where there is one."""

    stable: Run | None
    diverged: Run | None


def pair(runs: tuple[Run, ...], max_stable_lr: float | None, first_diverged_lr: float | None) -> Pair:
    """Where the edge is not known, the largest stable value below the smallest diverged one stands for it."""
    all_diverged = [run for run in runs if run.verdict == "diverged"]
    diverged = [run for run in all_diverged if run.value == first_diverged_lr] or all_diverged[:1]
    ceiling = diverged[0].value if diverged else math.inf
    all_stable = [run for run in runs if run.verdict == "stable" and run.value < ceiling]
    stable = [run for run in all_stable if run.value == max_stable_lr]
    if not stable and all_stable:
        stable = [run for run in all_stable if run.value == all_stable[-1].value]
    for its in stable:
        for other in diverged:
            if its.seed == other.seed:
                return Pair(its, other)
    return Pair(stable[0] if stable else None, diverged[0] if diverged else None)


@dataclass(frozen=True)
class Search:
    """``key`` names what was searched, in the settings; ``label`` does for readers."""

    name: str
    ladder: tuple[float, ...]
    seeds: int
    key: str
    label: str
    variants: tuple[Variant, ...]
    curves: Curves = field(repr=False, compare=False)

    @property
    def searched(self) -> str:
        """The label where there is room."""
        return spelled_out(self.label)

    @property
    def finished(self) -> bool:
        return all(variant.result is not None for variant in self.variants)

    @property
    def result(self) -> SearchResult:
        """Of the variants that have one."""
        found = {its.name: its.result for its in self.variants if its.result is not None}
        return SearchResult(self.name, self.ladder, self.seeds, found, self.key, self.label)

    @property
    def in_nats(self) -> bool:
        """Whether this is of a language model: losses are nats per token, and runs have a perplexity."""
        return any(run.val_perplexity is not None for run in self.runs)

    @property
    def loss_name(self) -> str:
        return "validation loss" if self.in_nats else "final score"

    @property
    def runs(self) -> list[Run]:
        return [run for variant in self.variants for run in variant.runs]

    def variant(self, name: str) -> Variant:
        """Raises KeyError, naming those there are."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(f"{name}: unknown variant; allowed: {', '.join(its.name for its in self.variants)}")
