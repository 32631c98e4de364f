"""The Python API: a search of any training function."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import cloudpickle
from omegaconf import OmegaConf

from redline.bounds import Count, check_value
from redline.config import shipped
from redline.errors import UserError
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
)
from redline.search.engine import run_search
from redline.search.policy import ladder
from redline.search.request import check_name
from redline.stability import build_rules, rule_specs

Train = Callable[[Trial], float | Score | None]


def geometric(low: float, high: float, count: int) -> tuple[float, ...]:
    """``count`` values from ``low`` to ``high``, equal in log. Raises UserError."""
    if not (0 < low < high < math.inf and type(count) is int and count >= 2):
        raise UserError(f"geometric({low}, {high}, {count}): allowed: 0 < low < high, 2 values or more")
    return tuple(ladder.rounded(low * (high / low) ** (i / (count - 1))) for i in range(count))


@dataclass(frozen=True)
class Function(Trainable):
    """A function as something that a search trains. ``described`` decides its outcome, beside its code."""

    train: Train
    max_steps: int | None = None
    described: Mapping[str, Any] = field(default_factory=dict)
    preload: Sequence[str] = ()

    def settings(self) -> Mapping[str, Any]:
        return {"max_steps": self.max_steps, **self.described}

    def facts(self) -> Facts:
        return Facts(self.max_steps, recipe=self.described)

    def run(self, trial: Trial) -> Score:
        score = self.train(trial)
        if isinstance(score, Score):
            return score
        if score is None and trial.stopped:
            return Score(None)
        try:
            if isinstance(score, str):  # float() takes some
                raise TypeError
            return Score(float(score))  # type: ignore[arg-type]  # whatever is not a number is told so
        except (TypeError, ValueError):
            raise TypeError(
                f"the function returned {score!r:.100}; allowed: a number or a redline.Score, the final "
                "score, or None once trial.report said stop"
            ) from None

    def shortened(self, max_steps: int) -> "Function":
        if self.max_steps is None or not 0 < max_steps < self.max_steps:
            raise UserError(
                f"short_run_steps={max_steps}: allowed: less than max_steps={self.max_steps}, which the "
                "function then reads from trial.facts, or None"
            )
        return replace(self, max_steps=max_steps)


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
    preload: Sequence[str] = (),
    home: str | Path = "mlruns",
    **options: Any,
) -> SearchResult:
    """Find the largest of ``values`` at which ``train`` does not diverge, and print the table.

    ``train``: a function from a `Trial` to its final score, or a `Trainable`; several, by name, are variants
    that are compared. A search of this ``name`` that was begun before, with the same arguments, goes on; its
    code may have changed meanwhile, which nobody checks: put into ``settings`` what makes it another search.
    ``label``: what the values are, for readers; ``key``: the same as a word. ``max_steps``: steps of a full
    run, where it is known: the rules' patience is a share of it. ``divergence``: changes to the rules of
    ``conf/divergence/default.yaml``, None for a rule that is off. ``preload``: modules that a function needs
    and that are slow to import, such as ``torch``: they are imported once instead of in every trial.
    ``options``: those of ``conf/hydra/sweeper/max_lr.yaml``, such as ``workers`` and ``storage``; stores are
    in ``home``, unless they say otherwise.

    Raises UserError for a mistake in the arguments, OutageError where the storage stays away,
    KeyboardInterrupt.
    """
    home = Path(home)
    for argument, text in (("name", name), ("label", label)):
        check_name(argument, text)
    named = _named(train, name)
    told = _options({"key": key, "seeds": seeds, **options}, home, list(named))
    check_value("max_steps", max_steps, Count | None)
    rungs = _ladder(values)
    described, imported = dict(settings or {}), (__name__, *preload)
    trainables = {
        variant: its if isinstance(its, Trainable) else Function(its, max_steps, described, imported)
        for variant, its in named.items()
    }
    _check_travels(trainables)
    variants = [
        Variant(variant, its, divergence_rules(divergence or {}, its.max_steps))
        for variant, its in trainables.items()
    ]

    def place(search: str) -> Path:
        directory = (home / "searches" / search).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    search = Search(
        options=told, variants=variants, ladder=rungs, home=home, place=place, name=name, label=label
    )
    at_end: list[AtEnd] = []
    if told.report_timeout is not None:
        from redline.report.at_end import WriteReport  # a report's imports are none of a trial's

        at_end.append(WriteReport(told.report_timeout))
    return run_search(search, at_end)


def _named(train: Any, name: str) -> dict[str, Any]:
    named = dict(train) if isinstance(train, Mapping) else {name: train}
    allowed = "allowed: a function, a redline.Trainable, or several of them by name"
    if not named:
        raise UserError(f"train={{}}: {allowed}")
    for variant, its in named.items():
        if isinstance(its, type) or not (isinstance(its, Trainable) or callable(its)):
            raise UserError(f"train={its!r:.100}: {allowed}")
        check_name("train", variant)
    return named


def _ladder(values: Any) -> tuple[float, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UserError(
            f"values={values!r:.100}: allowed: two numbers or more, as redline.geometric gives them"
        )
    return tuple(ladder.from_values(values, "values"))


def _options(given: Mapping[str, Any], home: Path, variants: Sequence[str]) -> Options:
    known = [option.name for option in fields(Options)]
    for option, value in given.items():
        if option not in known:
            raise UserError(f"{option}={value!r:.100}: no such argument; allowed: {', '.join(known)}")
    file: Any = OmegaConf.to_container(shipped("hydra/sweeper/max_lr"))
    defaults = {option: file[option] for option in known}
    defaults |= {"storage": f"sqlite:///{home / 'optuna.db'}", "reference": variants[0]}
    options = Options(**{**defaults, **given})
    options.check("")
    if options.reference not in variants:
        raise UserError(f"reference={options.reference}: allowed: {', '.join(variants)}")
    return options


def divergence_rules(changes: Mapping[str, Any], max_steps: int | None) -> dict[str, Any]:
    """The default rules for runs of so many steps (None: not known), with these changes.

    A function has no schedule: what is told of one is 0.
    """
    default = shipped("divergence/default")
    known = rule_specs(default)
    for name, change in changes.items():
        own = isinstance(change, Mapping) and "_target_" in change
        if name not in known and not own:
            raise UserError(
                f"divergence={{{name!r}: …}}: unknown rule; allowed: {', '.join(known)}, or one of your own "
                "with _target_"
            )
        if not (change is None or isinstance(change, Mapping)):
            raise UserError(
                f"divergence={{{name!r}: {change!r:.100}}}: allowed: its numbers by name, or None"
            )
    cfg = OmegaConf.merge(
        {"schedule": {"warmup_steps": 0}, "trainer": {"max_steps": max_steps}, "divergence": default},
        {"divergence": dict(changes)},
    )
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    rules = rule_specs(plain["divergence"])
    build_rules(rules, object)
    return rules


def _check_travels(trainables: Mapping[str, Trainable]) -> None:
    """A trial is a process of its own: what it trains is sent there."""
    for variant, trainable in trainables.items():
        try:
            cloudpickle.dumps(trainable)
        # Whatever the object at fault raises.
        except Exception as error:
            raise UserError(
                f"train={variant}: cannot be sent to another process ({type(error).__name__}: {error}); "
                "allowed: what can be pickled: open files, locks and generators belong inside the function"
            ) from error
