"""What a search found: the content of ``result.json``, written and read here and nowhere else."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from redline.errors import UserError
from redline.files import atomic_write

VERSION = 1  # of the file's form; files without one are older and lack some fields


@dataclass(frozen=True)
class VariantResult:
    """One variant's answer. Losses are final scores, in nats unless the trainable says otherwise.

    ``max_stable_lr`` is a value only where the ladder shows both ends of the bracket as neighbours: a
    censored search has no answer, nor has one with runs left open between the ends.
    """

    max_stable_lr: float | None
    first_diverged_lr: float | None
    censored: Literal["above", "below"] | None
    first_diverged_reason: str | None
    val_loss: float | None  # at max_stable_lr, mean over seeds
    best_lr: float | None
    best_val_loss: float | None
    trials: int
    optimizer_steps: int
    grid_steps: int  # of every rung and every seed at full length
    first_diverged_step: int | None = None
    max_stable_lr_90: tuple[float, float] | None = None
    val_losses: Mapping[str, float] = field(default_factory=dict)  # seed -> val_loss
    val_perplexity: float | None = None
    short_runs: int = 0
    stable_above: tuple[float, ...] = ()  # stable rungs above the first diverged one
    open: tuple[float, ...] = ()  # rungs whose runs crashed too often
    max_steps: int | None = None
    parameters: int | None = None
    tokens_per_step: int | None = None
    precision: str | None = None

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Self:
        """Raises TypeError for what is no entry."""
        return cls(**_typed(cls, entry))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SearchResult:
    """``key`` names what was searched, in the settings; ``label`` does for readers."""

    search: str
    ladder: tuple[float, ...]
    seeds: int
    variants: Mapping[str, VariantResult]
    key: str = "lr"
    label: str = "LR"

    @property
    def finished(self) -> bool:
        """Whether every variant has all the runs that its answer needs."""
        return not any(its.open for its in self.variants.values())

    @property
    def in_nats(self) -> bool:
        """Whether final scores are nats per token, and exp of them is a perplexity."""
        known = self.variants.values()
        return all(its.val_loss is None or its.val_perplexity is not None for its in known)

    def write(self, path: Path) -> None:
        """A reader sees the old file or the new one, never half."""
        content = {"version": VERSION, **asdict(self)}
        with atomic_write(path) as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())

    @classmethod
    def read(cls, path: Path, role: str = "result") -> Self:
        """Raises UserError, naming ``role``, for whatever is no ``result.json``."""
        allowed = "allowed: the path of a search's result.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{role}={path}: no such file; {allowed}") from None
        except (OSError, ValueError):
            raise UserError(f"{role}={path}: not a file of JSON; {allowed}") from None
        try:
            found = cls(**_typed(cls, content))
            if not found.ladder or found.seeds < 1:
                raise TypeError("asks for no run")
            return found
        except (TypeError, AttributeError):
            raise UserError(f"{role}={path}: not the result of a search; {allowed}") from None


def spelled_out(label: str) -> str:
    """A label in a title or on an axis, where there is room."""
    return label.replace("LR", "learning rate")


def _typed(cls: type, content: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON holds of a dataclass's fields, with tuples for lists. Raises TypeError for another type."""
    hints = get_type_hints(cls)
    return {name: _as(hints[name], value) for name, value in content.items() if name in hints}


def _as(hint: Any, value: Any) -> Any:
    kind, inner = get_origin(hint), get_args(hint)
    if NoneType in inner:
        return None if value is None else _as(inner[0], value)
    if kind is tuple and isinstance(value, list) and (... in inner or len(value) == len(inner)):
        return tuple(_as(inner[0], its) for its in value)
    if kind is Mapping and isinstance(value, dict):
        return {_as(inner[0], key): _as(inner[1], its) for key, its in value.items()}
    if hint is VariantResult:
        return VariantResult.from_dict(value)
    if (kind is Literal and value in inner) or (hint is float and isinstance(value, int | float)):
        return value
    if kind is None and isinstance(value, hint):
        return value
    raise TypeError(f"{value!r} is no {hint}")
