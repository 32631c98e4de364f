"""The result of one training run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """Why a run has diverged, such as the rule that it broke, and the step (counted from 0) at which it did.

    A forecast is one too: that the run is expected to.
    """

    reason: str
    step: int


@dataclass(frozen=True)
class Cut:
    """The search ended a run early because it would be lost.

    ``loss``: the final score that was expected of it, in the unit of ``Outcome.val_loss``; ``spread``: the
    standard deviation of that expectation.
    """

    loss: float
    spread: float


@dataclass(frozen=True)
class Outcome:
    """Numbers of one run: it was stable, diverged by a rule, or was cut by the search.

    Losses are in nats per token, or in the trainable's own unit; ``val_loss`` is the final score, None where
    a run ended before it. A run that crashed has no outcome.
    """

    value: float  # of what is searched, such as the learning rate
    seed: int
    reason: str | None  # the rule that broke; None: the run was stable by itself, or cut
    step: int  # the step (counted from 0) that broke an online rule, else the last one
    optimizer_steps: int  # what the run cost
    val_loss: float | None
    initial_loss: float
    train_loss: float
    floor: float | None = None  # the score of a model that ignores its context, where the trainable gives it
    numbers: Mapping[str, float] = field(default_factory=dict)  # further ones, such as perplexity
    spikes: int = 0
    interventions: Mapping[str, int] = field(default_factory=dict)  # as in `Score`
    page: str | None = field(default=None, compare=False)  # where its curves are
    seconds: float = field(default=0.0, compare=False)  # in which it trained and was scored
    cut: Cut | None = None  # None: it ended by itself

    def __post_init__(self) -> None:
        assert self.cut is None or (self.reason is None and self.val_loss is None)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Outcome":
        """Read what `dataclasses.asdict` made of one, also after JSON."""
        cut = plain.get("cut")
        return cls(**{**plain, "cut": None if cut is None else Cut(**cut)})

    @property
    def diverged(self) -> bool:
        return self.reason is not None

    @property
    def known_floor(self) -> float | None:
        """The score of a model that knows nothing: the floor, or the initial loss where none is given."""
        floors = (self.floor, self.initial_loss)
        return next((its for its in floors if its is not None and math.isfinite(its)), None)


@dataclass(frozen=True)
class Score:
    """What a run gives back at its end.

    ``loss``: the final score, in nats or any unit in which smaller is better; None where the run was stopped
    before. ``floor``: the score of a model that ignores its context, in the same unit. ``numbers``: what else
    is to be kept, such as ``perplexity``. ``steps``: optimizer steps taken, where not all were reported.
    ``interventions``: how many steps each thing changed that can hide divergence, such as by skipping them.
    """

    loss: float | None
    floor: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    steps: int | None = None
    interventions: Mapping[str, int] = field(default_factory=dict)
