"""Searches as a storage holds them, read back: what the report and the dashboard are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from redline.search.result import VariantResult
from redline.search.store.notes import in_words, write_trial_note
from redline.search.trainable import Facts
from redline.stability import Outcome

State = Literal["running", "stable", "diverged", "cut", "crashed", "interrupted"]


# Fields of a `SearchResult` that a study's attributes hold too; searches of before there were some lack them.
ASKED = ("recipe", "criterion", "lost_share", "claim")


@dataclass(frozen=True)
class RecordedTrial:
    """``state`` and ``reason`` are the run's own. Whether it is lost is the curve's."""

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
    asked: Mapping[str, Any]  # those of `ASKED` that its study has
    trials: tuple[RecordedTrial, ...]


def read_searches(storage: BaseStorage) -> dict[str, tuple[RecordedVariant, ...]]:
    """Name -> variants, without their short runs; the latest search last."""
    found: dict[str, tuple[RecordedVariant, ...]] = {}
    for summary in optuna.get_all_study_summaries(storage, include_best_trial=False):
        attributes = summary.user_attrs
        # The facts are written last: a study without them is incomplete.
        if "facts" in attributes and not attributes["is_short"]:
            trials = storage.get_all_trials(summary._study_id, deepcopy=False)
            variant = _variant(attributes, trials)
            found[variant.search] = (*found.get(variant.search, ()), variant)
    return found


def link_trials(storage: BaseStorage, search: str, pages: Mapping[tuple[str, str], str | None]) -> None:
    """Put into their notes the pages of trials that ended before these were known.

    ``pages``: variant and trial's number -> the address of its curves.
    """
    for summary in optuna.get_all_study_summaries(storage, include_best_trial=False):
        study = summary.user_attrs
        if study.get("search") != search:
            continue
        for trial in storage.get_all_trials(summary._study_id, deepcopy=False, states=[TrialState.COMPLETE]):
            page, its = pages.get((study["variant"], str(trial.number))), trial.user_attrs
            if page is not None and its["page"] is None:
                verdict = in_words(its["reason"], its["step"], cut=its.get("verdict") == "cut")
                write_trial_note(storage, summary._study_id, trial, study, page, verdict)


def _variant(attributes: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> RecordedVariant:
    key = attributes["key"]
    result = attributes.get("result") if attributes.get("finished") else None
    return RecordedVariant(
        search=attributes["search"],
        name=attributes["variant"],
        ladder=tuple(attributes["ladder"]),
        seeds=attributes["seeds"],
        key=key,
        label=attributes["label"],
        facts=Facts(**attributes["facts"]),
        result=None if result is None else VariantResult.from_dict(result),
        asked={name: attributes[name] for name in ASKED if name in attributes},
        trials=tuple(_trial(trial, key) for trial in trials),
    )


def _trial(trial: FrozenTrial, key: str) -> RecordedTrial:
    plain = trial.user_attrs.get("outcome") if trial.state == TrialState.COMPLETE else None
    outcome = None if plain is None else Outcome.from_dict(plain)
    reported = trial.intermediate_values
    last = max(reported, default=None)
    state: State
    if outcome is not None:
        state = "cut" if outcome.cut is not None else "diverged" if outcome.diverged else "stable"
    elif trial.state == TrialState.FAIL:
        state = "crashed" if trial.user_attrs.get("failure") == "crash" else "interrupted"
    else:
        state = "running"
    return RecordedTrial(
        number=trial.number,
        value=trial.params[key],
        seed=trial.params["seed"],
        state=state,
        reason=None if outcome is None else outcome.reason,
        outcome=outcome,
        last_step=last,
        last_loss=None if last is None else reported[last],
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )
