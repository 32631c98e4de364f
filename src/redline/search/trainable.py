"""The contract between the search and what it searches: a trainable says what it is, and runs trials."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from pathlib import Path
from typing import Any

from redline.errors import UserError
from redline.stability import Outcome, Score, Watch

__all__ = ["Facts", "Score", "Trainable", "Trial"]


@dataclass(frozen=True)
class Facts:
    """What is known of a trainable's runs before the first one; the same for all machines of a search.

    ``recipe`` is what an edge depends on beside the variant, such as the optimizer, for readers: plain values
    by name, as JSON knows them.
    """

    max_steps: int | None = None  # optimizer steps of a full run; None: known once one has ended
    parameters: int | None = None
    tokens_per_step: int | None = None
    precision: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    coupled_decay: float = 0.0  # times the value is the share that decay takes off the weights at a step
    independent_decay: float = 0.0  # what it takes off whatever the value is

    def of_length(self, max_steps: int) -> "Facts":
        """The same of runs of so many steps."""
        return replace(self, max_steps=max_steps, recipe={**self.recipe, "max_steps": max_steps})

    def decay_per_step(self, value: float) -> float | None:
        """The share of the weights that decay takes off at a step with this value, such as the peak LR.

        None where none is known, as of a value that is no learning rate.
        """
        return value * self.coupled_decay + self.independent_decay or None


@dataclass(frozen=True)
class Trial:
    """One training run that a search asks for."""

    value: float  # of what is searched: the learning rate, unless the search says otherwise
    seed: int
    directory: Path  # its own; the same again when the trial is resumed
    facts: Facts
    threads: int | None = None  # CPU threads that it may use; None: as many as it likes
    search: str = ""  # its name
    tags: Mapping[str, str] = field(default_factory=dict)  # which trial of it this is, for a tracker
    watch: Watch = field(default_factory=Watch, repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """Whether the run's answer is no longer needed: what it gives back is thrown away."""
        return self.watch.cancelled

    @property
    def stopped(self) -> bool:
        """Whether `report` has said that the run is to stop."""
        return self.watch.verdict is not None or self.watch.cancelled

    def report(self, step: int, loss: float, grad_norm: float | None = None) -> bool:
        """Hand in a step (counted from 0): its training loss, and its gradient norm before clipping.

        Every tenth will do: rules count steps, not reports. True where the run is to stop: a rule broke, or
        its answer is no longer needed. Raises UserError for a step before the latest.
        """
        # A tensor's graph would live on in the rules' means.
        grad_norm = None if grad_norm is None else float(grad_norm)
        return self.watch.report(index(step), float(loss), grad_norm)

    def outcome(self, score: Score) -> Outcome:
        """What follows from ``score`` and from what was reported, should the run end with it."""
        return self.watch.outcome(self.value, self.seed, _plain(score), self.facts.max_steps)

    def link(self, page: str) -> None:
        """Name the address of a page with this run's curves, for the dashboard to link to."""
        self.watch.page = page


def _plain(score: Score) -> Score:
    """With numbers of Python's, which a storage takes: a mean of an array gives one of NumPy's."""
    return Score(
        loss=None if score.loss is None else float(score.loss),
        floor=None if score.floor is None else float(score.floor),
        numbers={str(name): float(number) for name, number in score.numbers.items()},
        steps=None if score.steps is None else int(score.steps),
        interventions={str(name): int(count) for name, count in score.interventions.items()},
    )


class Trainable(ABC):
    """What a search trains. It is pickled, and its trials run in processes of their own.

    The search's own process holds it too and must start fast: what is slow to import belongs into the
    methods. ``check``, ``facts`` and ``run`` are called in a child process.
    """

    preload: Sequence[str] = ()  # modules that every trial imports; imported once

    @property
    @abstractmethod
    def max_steps(self) -> int | None:
        """Optimizer steps of a full run; None where only a run that has ended tells."""

    @property
    def devices(self) -> int:
        """Devices of one machine that each trial uses at once; on a CPU, cores."""
        return 1

    def check(self) -> None:  # noqa: B027  # nothing to check is fine
        """Raise UserError for settings that cannot work. Nothing has been started or written by then."""

    def facts(self) -> Facts:
        """See `Facts`. Called once a search, after ``check``; what trials share can be prepared here."""
        return Facts(self.max_steps)

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """All that decides a trial's outcome beside value and seed, as JSON knows values.

        Two searches with the same settings, ladder and seeds are one.
        """

    @abstractmethod
    def run(self, trial: Trial) -> Score:
        """Train. Whatever is raised is a crash, and tried again, but for UserError."""

    def shortened(self, max_steps: int) -> "Trainable":
        """The same with fewer steps, for short runs that look first. Raises UserError."""
        raise UserError(
            f"short_run_steps={max_steps}: allowed here: null, for {type(self).__name__} has no short runs"
        )
