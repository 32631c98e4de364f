"""What a search found: the content of ``result.json``, written and read here and nowhere else."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt, MinLen

from redline.errors import UserError
from redline.files import atomic_write

VERSION = 1  # of the file's form; files without one are older and lack some fields
_AS_WRITTEN = {"strict": True, "allow_inf_nan": False}  # how pydantic reads it


@dataclass(frozen=True)
class VariantResult:
    """One variant's answer. Losses are final scores, in nats unless the trainable says otherwise.

    ``max_stable_lr`` is a value only where the ladder shows both ends of the bracket as neighbours: a
    censored search has no answer, nor has one with runs left open between the ends.
    """

    __pydantic_config__: ClassVar[Any] = _AS_WRITTEN

    max_stable_lr: float | None
    first_diverged_lr: float | None
    censored: Literal["above", "below"] | None
    first_diverged_reason: str | None
    val_loss: float | None  # at max_stable_lr, mean over seeds
    best_lr: float | None
    best_val_loss: float | None
    trials: Annotated[int, Ge(0)]
    optimizer_steps: Annotated[int, Ge(0)]
    grid_steps: Annotated[int, Ge(0)]  # of every rung and every seed at full length
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
        """What JSON made of one. Raises ValueError for what is no entry."""
        return _reader(VariantResult).validate_json(json.dumps(entry))


@dataclass(frozen=True)
class SearchResult:
    """``key`` names what was searched, in the settings; ``label`` does for readers."""

    __pydantic_config__: ClassVar[Any] = _AS_WRITTEN

    search: str
    ladder: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)]
    seeds: Annotated[int, Ge(1)]
    variants: Annotated[Mapping[str, VariantResult], MinLen(1)]
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
        except (OSError, ValueError, RecursionError):
            raise UserError(f"{role}={path}: not a file of JSON; {allowed}") from None
        version = content.get("version", VERSION) if isinstance(content, dict) else VERSION
        if version != VERSION:
            raise UserError(f"{role}={path}: version={version!r}: unknown; allowed: {VERSION}")
        try:
            return _reader(SearchResult).validate_json(json.dumps(content))
        except ValueError as error:
            raise UserError(f"{role}={path}: {_first_fault(error)}; {allowed}") from None


def _first_fault(error: Any) -> str:
    """Of pydantic's: the key, and what is wrong with its value."""
    fault = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(map(str, fault["loc"]))
    return f"{key}: {fault['msg']}" if key else "not the result of a search"


def spelled_out(label: str) -> str:
    """A label in a title or on an axis, where there is room."""
    return label.replace("LR", "learning rate")


@cache
def _reader(cls: type) -> Any:
    """Of JSON: no text for a number, no infinity; keys that it does not know are left out."""
    from pydantic import TypeAdapter  # takes a moment, and few commands read a result

    return TypeAdapter(cls)
