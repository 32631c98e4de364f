"""The Python API: a search of any training function."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from redline.config import shipped
from redline.errors import UserError
from redline.report.at_end import WriteReport
from redline.search import (
    AtEnd,
    Facts,
    Options,
    Score,
    Search,
    SearchResult,
    Trainable,
    Trial,
    Variant,
    run_search,
)
from redline.search.policy import ladder
from redline.stability import rule_specs

Train = Callable[[Trial], float | Score]


def geometric(low: float, high: float, count: int) -> tuple[float, ...]:
    """``count`` values from ``low`` to ``high``, equal in log. Raises ValueError."""
    if not (0 < low < high < math.inf and count >= 2):
        raise ValueError(f"geometric({low:g}, {high:g}, {count}): allowed: 0 < low < high, 2 values or more")
    return tuple(ladder.rounded(low * (high / low) ** (i / (count - 1))) for i in range(count))


@dataclass(frozen=True)
class Function(Trainable):
    """A function as something that a search trains. ``described`` decides its outcome, beside its code."""

    train: Train
    known: Facts
    described: Mapping[str, Any]

    @property
    def max_steps(self) -> int | None:
        return self.known.max_steps

    def facts(self) -> Facts:
        return self.known

    def settings(self) -> Mapping[str, Any]:
        return {**asdict(self.known), **self.described}

    def run(self, trial: Trial) -> Score:
        score = self.train(trial)
        if isinstance(score, Score):
            return score
        return Score(float(score))

    def shortened(self, max_steps: int) -> "Function":
        if self.max_steps is None or not 0 < max_steps < self.max_steps:
            raise UserError(
                f"short_run_steps={max_steps}: allowed: less than max_steps={self.max_steps}, which the "
                "function then reads from trial.facts, or None"
            )
        return replace(self, known=replace(self.known, max_steps=max_steps))


def find_edge(
    train: Train | Trainable | Mapping[str, Train | Trainable],
    values: Iterable[float],
    *,
    name: str,
    seeds: int = 1,
    label: str = "LR",
    key: str = "lr",
    max_steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
    divergence: Mapping[str, Any] | None = None,
    home: str | Path = "mlruns",
    **options: Any,
) -> SearchResult:
    """Find the largest of ``values`` at which ``train`` does not diverge, and print the table.

    ``train``: a function from a `Trial` to its final score, or a `Trainable`; several, by name, are variants
    that are compared. A search of this ``name`` that was begun before, with the same arguments, goes on; its
    code may have changed meanwhile, which nobody checks: put into ``settings`` what makes it another search.
    ``label``: what the values are, for readers; ``key``: the same as a word. ``max_steps``: steps of a full
    run, where it is known. ``divergence``: changes to the rules of ``conf/divergence/default.yaml``, None for
    a rule that is off. ``options``: those of ``conf/hydra/sweeper/max_lr.yaml``, such as ``workers`` and
    ``storage``; stores are in ``home``, unless they say otherwise.

    Raises UserError for a mistake in the arguments, KeyboardInterrupt.
    """
    home = Path(home)
    named = train if isinstance(train, Mapping) else {name: train}
    told = _options({"key": key, "seeds": seeds, **options}, home, list(named))
    rules = _rules(divergence or {})
    variants = [
        Variant(
            variant,
            its if isinstance(its, Trainable) else Function(its, Facts(max_steps), dict(settings or {})),
            rules,
        )
        for variant, its in named.items()
    ]

    def place(search: str) -> Path:
        directory = (home / "searches" / search).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    search = Search(
        options=told,
        variants=variants,
        ladder=tuple(ladder.from_values(values, "values")),
        home=home,
        place=place,
        name=name,
        label=label,
        prefix="",
    )
    at_end: list[AtEnd] = []
    if told.report_timeout is not None:
        at_end.append(WriteReport(told.report_timeout))
    return run_search(search, at_end)


def _options(given: Mapping[str, Any], home: Path, variants: Sequence[str]) -> Options:
    known = [option.name for option in fields(Options)]
    for option in given:
        if option not in known:
            raise UserError(f"{option}: unknown option; allowed: {', '.join(known)}")
    file: Any = OmegaConf.to_container(shipped("hydra/sweeper/max_lr"))
    defaults = {option: file[option] for option in known}
    defaults |= {"storage": f"sqlite:///{home / 'optuna.db'}", "reference": variants[0]}
    return Options(**{**defaults, **given})


def _rules(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The default rules, with these changes. A function has no schedule: what is told of one is 0."""
    default = shipped("divergence/default")
    cfg = OmegaConf.merge({"schedule": {"warmup_steps": 0}, "divergence": default}, {"divergence": changes})
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return rule_specs(plain["divergence"])
