"""What a search found: the content of ``result.json``, written and read here and nowhere else."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Le, MinLen, Predicate

from redline.errors import UserError
from redline.files import atomic_write

VERSION = 2  # of the file's form
_OLD = 1  # files of before there were versions count as this one
_AS_WRITTEN = {"strict": True, "allow_inf_nan": False}  # how pydantic reads it

# Probabilities at which a posterior is kept: every 5%, and closer to its ends, which the gate looks at.
QUANTILES = (0.01, 0.025, *(n / 20 for n in range(1, 20)), 0.975, 0.99)


def _is_posterior(values: Sequence[float]) -> bool:
    return not values or (len(values) == len(QUANTILES) and list(values) == sorted(values))


Value = Annotated[float, Gt(0)]  # of what is searched, such as the LR
Interval = tuple[Value, Value]  # that holds the truth with a probability of 90%
Posterior = Annotated[tuple[Value, ...], Predicate(_is_posterior)]  # values at `QUANTILES`; empty: unknown
Chance = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(0)]


@dataclass(frozen=True)
class Ratio:
    """A variant's edges over those of the variant ``to``.

    A ``chance`` is the probability that the ratio is above 1, a ``claim_chance`` that it is above the
    search's claim; None where there is no claim, or no ratio.
    """

    __pydantic_config__: ClassVar[Any] = _AS_WRITTEN

    to: str
    useful: Value | None = None
    useful_90: Interval | None = None
    useful_chance: Chance | None = None
    useful_claim_chance: Chance | None = None
    stable: Value | None = None
    stable_90: Interval | None = None
    stable_chance: Chance | None = None
    stable_claim_chance: Chance | None = None


@dataclass(frozen=True)
class Curve:
    """What is known of a variant at each of ``lr``, smallest first.

    ``loss`` is the seeds' mean curve of final scores; ``loss_low`` to ``loss_high`` holds it with 90%.
    """

    __pydantic_config__: ClassVar[Any] = _AS_WRITTEN

    lr: tuple[Value, ...]
    loss: tuple[float, ...]
    loss_low: tuple[float, ...]
    loss_high: tuple[float, ...]
    chance_lost: tuple[Chance, ...]
    chance_diverged: tuple[Chance, ...]

    def __post_init__(self) -> None:
        if len({len(values) for values in vars(self).values()}) > 1:
            raise ValueError("a curve's numbers: allowed: as many of each")


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """One variant's answer. Losses are final scores, in nats unless the trainable says otherwise.

    ``max_useful_lr`` and ``max_stable_lr`` are points on the variant's curve, each with its interval. The
    rung beside each is the largest of the user's own ladder below it.
    """

    __pydantic_config__: ClassVar[Any] = _AS_WRITTEN

    max_useful_lr: Value | None
    max_useful_lr_90: Interval | None
    max_useful_rung: Value | None
    max_stable_lr: Value | None
    max_stable_lr_90: Interval | None
    max_stable_rung: Value | None
    censored: Literal["above", "below"] | None  # the useful edge lies there, outside all that was tried
    stable_censored: Literal["above", "below"] | None = None  # the same of the stable edge
    useful_quantiles: Posterior = ()
    stable_quantiles: Posterior = ()
    first_diverged_lr: Value | None
    first_diverged_reason: str | None
    first_diverged_step: int | None = None
    ratio: Ratio | None = None
    val_loss: float | None  # at max_useful_rung: mean over the seeds that ran there, else the curve's
    val_losses: Mapping[str, float] = field(default_factory=dict)  # seed -> val_loss
    val_perplexity: float | None = None
    best_lr: Value | None
    best_val_loss: float | None
    floor: float | None = None  # the score of a model that ignores its context
    curve: Curve | None = None
    trials: Count
    cut: Count = 0  # trials that were ended early because they would be lost
    short_runs: Count = 0
    optimizer_steps: Count
    grid_steps: Count  # of every rung and every seed at full length
    # Of each thing that can hide divergence, how many steps it changed, in all runs that ended by themselves.
    interventions: Mapping[str, Count] = field(default_factory=dict)
    open: tuple[Value, ...] = ()  # rungs whose runs crashed too often
    # Why the search ended: the interval is narrow enough; the budget is spent; one more run would hardly
    # narrow the interval; no run was left.
    stopped: Literal["resolution", "budget", "settled", "runs"] | None = None
    # One more run would divide the interval's upper end over its lower by this.
    next_gain: float | None = None
    doubtful: Chance | None = None  # share of the runs that may be on either side of the useful edge
    decay_per_step: float | None = None  # share of the weights that decay takes off, at max_useful_lr
    max_steps: int | None = None
    parameters: int | None = None
    tokens_per_step: int | None = None
    precision: str | None = None
    version: Annotated[int, Ge(_OLD), Le(VERSION)] = VERSION  # of the form that it was read from

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Self:
        """What JSON made of one, of any version. Raises ValueError for what is no entry."""
        return _reader(VariantResult).validate_json(json.dumps(_of_now(entry)))


def _of_now(entry: Any) -> Any:
    """A variant's entry in today's form.

    In version 1, ``max_stable_lr`` was the largest rung below the first that diverged or that ended 0.25 nats
    above a smaller one. Most of those were no divergence, so it is read as the useful edge's rung.
    """
    if not isinstance(entry, Mapping) or "max_useful_lr" in entry or "max_stable_lr" not in entry:
        return entry
    rung, above, interval = (
        entry.get(key) for key in ("max_stable_lr", "first_diverged_lr", "max_stable_lr_90")
    )
    if interval is None and rung is not None and above is not None:
        interval = [rung, above]  # the first results had no interval; the edge lies between these two
    return {
        **entry,
        "max_useful_lr": None,
        "max_useful_lr_90": interval,
        "max_useful_rung": rung,
        "max_stable_lr": None,
        "max_stable_lr_90": None,
        "max_stable_rung": None,
        "version": _OLD,
    }


@dataclass(frozen=True)
class SearchResult:
    """``key`` names what was searched, in the settings; ``label`` does for readers.

    ``recipe`` is what an edge depends on beside the variant, such as weight decay; ``criterion`` which edge
    was looked for, ``lost_share`` what counts as lost, ``claim`` the ratio that somebody claims.
    """

    __pydantic_config__: ClassVar[Any] = _AS_WRITTEN

    search: str
    ladder: Annotated[tuple[Value, ...], MinLen(1)]
    seeds: Annotated[int, Ge(1)]
    variants: Annotated[Mapping[str, VariantResult], MinLen(1)]
    key: str = "lr"
    label: str = "LR"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    criterion: Literal["useful", "stable", "both"] = "useful"
    lost_share: Annotated[float, Gt(0)] = 0.25
    claim: Annotated[float, Gt(0)] | None = None

    @property
    def version(self) -> int:
        """Of the form that it was read from."""
        return min((its.version for its in self.variants.values()), default=VERSION)

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
        """A reader sees the old file or the new one, never half. An old result is never written again."""
        assert self.version == VERSION
        text = json.dumps({"version": VERSION, **asdict(self)}, indent=2)
        text = re.sub(r"\[\n[^][{}\"]*\]", _on_one_line, text)
        with atomic_write(path) as file:
            file.write(f"{text}\n".encode())

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
        version = content.get("version", _OLD) if isinstance(content, dict) else VERSION
        if isinstance(version, bool) or version not in (_OLD, VERSION):
            raise UserError(f"{role}={path}: version={version!r}: unknown; allowed: {_OLD}, {VERSION}")
        try:
            if version == _OLD and isinstance(content.get("variants"), dict):
                content["variants"] = {name: _of_now(its) for name, its in content["variants"].items()}
            return _reader(SearchResult).validate_json(json.dumps(content))
        except ValueError as error:
            raise UserError(f"{role}={path}: {_first_fault(error)}; {allowed}") from None


def _on_one_line(numbers: re.Match[str]) -> str:
    return f"[{' '.join(numbers[0][1:-1].split())}]"


def _first_fault(error: Any) -> str:
    """Of pydantic's: the key, and what is wrong with its value."""
    fault = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(map(str, fault["loc"]))
    return f"{key}: {fault['msg']}" if key else "not the result of a search"


def spelled_out(label: str) -> str:
    """A label in a title or on an axis, where there is room."""
    return label.replace("LR", "learning rate")


def span(interval: Interval) -> str:
    """An interval with as many digits as tell its ends apart."""
    for form in (".2g", ".3g"):
        low, high = (f"{end:{form}}" for end in interval)
        if low != high:
            break
    return f"{low}–{high}"


@cache
def _reader(cls: type) -> Any:
    """Of JSON: no text for a number, no infinity; keys that it does not know are left out."""
    from pydantic import TypeAdapter  # takes a moment, and few commands read a result

    return TypeAdapter(cls)
