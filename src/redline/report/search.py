"""A search as plain data: variants, their runs, and what each run's curves are read with."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from redline.report.curves import Curves, TrackedRun
from redline.search.result import SearchResult, VariantResult, spelled_out
from redline.search.store.record import RecordedTrial
from redline.search.trainable import Facts


def finite(values: Iterable[float | None]) -> list[float]:
    """Those that are finite numbers."""
    return [value for value in values if value is not None and math.isfinite(value)]


@dataclass(frozen=True)
class Run(RecordedTrial):
    """One point of a search: a value of what is searched, and a seed. What it has not reached is None."""

    variant: str
    curves: Curves = field(repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """Stable or diverged by its own rules, cut by the search, or how far the run is."""
        return self.state

    @property
    def finished(self) -> bool:
        return self.outcome is not None

    @property
    def step(self) -> int | None:
        """The one (counted from 0) at which a rule broke, else the last one."""
        return self.last_step if self.outcome is None else self.outcome.step

    @property
    def val_loss(self) -> float | None:
        """The final score, in nats per token where `Search.in_nats`."""
        return None if self.outcome is None else self.outcome.val_loss

    @property
    def shown_loss(self) -> float | None:
        """The final score, or what the search expected of it when it cut the run."""
        cut = None if self.outcome is None else self.outcome.cut
        return self.val_loss if cut is None else cut.loss

    @property
    def val_perplexity(self) -> float | None:
        return None if self.outcome is None else self.outcome.numbers.get("perplexity")

    @property
    def seconds(self) -> float | None:
        return None if self.outcome is None else self.outcome.seconds

    @cached_property
    def tracked(self) -> TrackedRun:
        """What MLflow holds of it."""
        return self.curves.find(self.variant, self.number)

    def history(self, metric: str) -> pd.Series:
        """A metric's values by step, read when first asked for; empty where it was not logged."""
        return self.curves.history(self.tracked, metric)


def initial_loss(runs: Iterable[Run]) -> float | None:
    """The mean over those that have a finite one; None where none has."""
    losses = finite(run.outcome.initial_loss for run in runs if run.outcome is not None)
    return fmean(losses) if losses else None


class Pair(NamedTuple):
    """The run at the useful edge and the one just above it, of the same seed where there is one."""

    useful: Run | None
    above: Run | None


@dataclass(frozen=True)
class Variant:
    """``result`` is None before the search's end."""

    name: str
    facts: Facts
    runs: tuple[Run, ...]  # by value, then seed
    result: VariantResult | None

    @cached_property
    def finished_runs(self) -> tuple[Run, ...]:
        """Those that ended by themselves or were cut."""
        return tuple(run for run in self.runs if run.finished)

    @cached_property
    def losses(self) -> pd.Series:
        """Each run's final loss, by its value; NaN where that is no finite number. Without cut runs."""
        ended = [run for run in self.finished_runs if run.verdict != "cut"]
        found = pd.Series([run.val_loss for run in ended], [run.value for run in ended], dtype=float)
        return found.replace([math.inf, -math.inf], math.nan)

    @property
    def values(self) -> tuple[float, ...]:
        """Those of its runs that ended by themselves, each once."""
        return tuple(self.losses.index.unique())

    @property
    def first_diverged(self) -> float | None:
        """By the result, or else the smallest value of a diverged run."""
        if self.result is not None:
            return self.result.first_diverged_lr
        return next((run.value for run in self.finished_runs if run.reason), None)

    @property
    def largest_stable(self) -> float | None:
        """The largest value of a stable run below every diverged one."""
        top = self.first_diverged or math.inf
        stable = [run.value for run in self.finished_runs if run.verdict == "stable" and run.value < top]
        return stable[-1] if stable else None

    @property
    def edge(self) -> float | None:
        """Where the useful edge is taken to be. Before the search's end, what is still stable."""
        if self.result is None:
            return self.largest_stable
        point, rung = self.result.max_useful_lr, self.result.max_useful_rung
        if self.result.censored == "above":
            return math.inf
        return rung if point is None else point

    @cached_property
    def pair(self) -> Pair:
        """Nearest to the edge on either side; every run lies above an edge that is not known."""
        edge = self.edge or 0.0
        below = [run for run in self.finished_runs if run.verdict == "stable" and run.value <= edge]
        beyond = [run for run in self.finished_runs if run.value > edge]
        useful = _at(below[-1].value if below else None, below)
        above = _at(beyond[0].value if beyond else None, beyond)
        for its in useful:
            for other in above:
                if its.seed == other.seed:
                    return Pair(its, other)
        return Pair(useful[0] if useful else None, above[0] if above else None)


def _at(value: float | None, runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.value == value]


@dataclass(frozen=True)
class Search:
    """``key`` names what was searched, in the settings; ``label`` does for readers."""

    name: str
    ladder: tuple[float, ...]
    seeds: int
    key: str
    label: str
    asked: Mapping[str, Any]  # what else was asked, as `SearchResult` names it
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
        return SearchResult(self.name, self.ladder, self.seeds, found, self.key, self.label, **self.asked)

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
