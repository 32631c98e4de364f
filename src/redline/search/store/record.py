"""Searches as a storage holds them, read back: what the report and the dashboard are made of."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from optuna.storages import BaseStorage

from redline.search.result import VariantResult
from redline.search.trainable import Facts
from redline.stability import Outcome

State = Literal["running", "stable", "diverged", "crashed", "interrupted"]


@dataclass(frozen=True)
class RecordedTrial:
    """``state`` and ``reason`` are the search's verdict by all that is known now."""

    number: int
    value: float
    seed: int
    state: State
    reason: str | None
    outcome: Outcome | None
    last_step: int | None  # of those that were reported, with its loss
    last_loss: float | None
    started: datetime | None
    ended: datetime | None
    page: str | None


@dataclass(frozen=True)
class RecordedVariant:
    """``result`` is None before the search's end."""

    search: str
    name: str
    ladder: tuple[float, ...]
    seeds: int
    key: str
    label: str
    facts: Facts
    result: VariantResult | None
    trials: tuple[RecordedTrial, ...]


def read_searches(storage: BaseStorage) -> dict[str, tuple[RecordedVariant, ...]]:
    """Name -> variants, without their short runs; the latest search last."""
    raise NotImplementedError("a stand-in: the search's own module takes its place")
