"""What a search found: the content of ``result.json``, written and read here and nowhere else."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

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
        """What JSON made of one: tuples have become lists."""
        return _reader(cls).validate_python(entry)


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
            text = path.read_text(encoding="utf-8")
            json.loads(text)
        except FileNotFoundError:
            raise UserError(f"{role}={path}: no such file; {allowed}") from None
        except (OSError, ValueError):
            raise UserError(f"{role}={path}: not a file of JSON; {allowed}") from None
        try:
            found: Self = _reader(cls).validate_json(text, strict=True)
            if not found.ladder or found.seeds < 1:
                raise ValueError("asks for no run")
            return found
        except ValueError:
            raise UserError(f"{role}={path}: not the result of a search; {allowed}") from None


def spelled_out(label: str) -> str:
    """A label in a title or on an axis, where there is room."""
    return label.replace("LR", "learning rate")


def _reader(cls: type) -> Any:
    from pydantic import TypeAdapter  # not at every start of a command

    return TypeAdapter(cls)
