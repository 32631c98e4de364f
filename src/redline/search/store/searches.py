"""Which searches a storage holds: their names, and whether a command goes on with one."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import optuna
from optuna.storages import BaseStorage

from redline.errors import UserError
from redline.search.result import VariantResult
from redline.search.store.patient_storage import PatientStorage
from redline.search.store.study import VariantStudy
from redline.search.trainable import Facts
from redline.search.variant import Variant

_LONGEST_NAME = 60  # characters of a default name, before its time


def choose_name(
    storage: BaseStorage,
    asked_name: str | None,
    asked: str,
    variants: Sequence[str],
    key: str = "search.name",
) -> str:
    """The search to work on: the one named, an unfinished one that asks the same, or a new one.

    ``asked`` is the command's fingerprint; ``key``: what the user calls the name. Raises UserError where the
    name belongs to another question.
    """
    known = _searches(storage)
    if asked_name is not None:
        if asked_name in known and known[asked_name]["fingerprint"] != asked:
            raise UserError(
                f"{key}={asked_name}: was begun with other variants, ladder, seeds or settings; "
                "allowed: the same command, or another name"
            )
        return asked_name
    for name, facts in known.items():
        if facts["fingerprint"] == asked and not facts.get("finished"):
            return name
    words = "-".join(variant.replace(", ", "-") for variant in variants)[:_LONGEST_NAME]
    stem = "".join("-" if letter in "/\\" or not letter.isprintable() else letter for letter in words)
    return f"{stem.strip(' .~')}-{time.strftime('%Y%m%d-%H%M%S')}"


def open_studies(
    storage: PatientStorage,
    url: str,
    name: str,
    variants: Sequence[Variant],
    common: Mapping[str, Any],
    facts: Mapping[str, Facts],
) -> dict[str, VariantStudy]:
    """A study per variant, begun where there is none.

    ``common``: the attributes that all have: ``fingerprint``, ``ladder``, ``seeds``, ``key``, ``label`` and
    those of `record.ASKED`.
    Of several machines that come at once, with facts that they measured, the first one's hold for all.
    """
    studies = {}
    with storage.alone(url):
        for variant in variants:
            attributes = {
                **common,
                "search": name,
                "variant": variant.name,
                "is_short": variant.is_short,
                "facts": asdict(facts[variant.name]),
            }
            studies[variant.name] = VariantStudy(
                storage, f"{name}/{variant.name}", attributes, first_seed=variant.first_seed
            )
    return studies


def forget_end(storage: BaseStorage, name: str, variants: Sequence[str]) -> None:
    """Take back that a search has ended, so that its next end is noticed."""
    for study_id in _study_ids(storage, name, variants).values():
        storage.set_study_user_attr(study_id, "finished", False)


def finished_results(
    storage: BaseStorage, name: str, variants: Sequence[str]
) -> dict[str, VariantResult] | None:
    """Every variant's result, as the machine that ended the search stored it; None before its end."""
    ids = _study_ids(storage, name, variants)
    found = {variant: storage.get_study_user_attrs(study_id) for variant, study_id in ids.items()}
    if not all(found.get(variant, {}).get("finished") for variant in variants):
        return None
    return {variant: VariantResult.from_dict(found[variant]["result"]) for variant in variants}


def recipe_of(storage: BaseStorage, name: str, variants: Sequence[str]) -> Mapping[str, Any]:
    """What an edge of the search depends on, as its studies keep it."""
    study_id = next(iter(_study_ids(storage, name, variants).values()))
    return storage.get_study_user_attrs(study_id)["recipe"]


def _study_ids(storage: BaseStorage, name: str, variants: Sequence[str]) -> dict[str, int]:
    """Variant -> its study's number in the storage, where there is one."""
    studies = {study.study_name: study._study_id for study in storage.get_all_studies()}
    return {v: studies[f"{name}/{v}"] for v in variants if f"{name}/{v}" in studies}


def _searches(storage: BaseStorage) -> dict[str, dict[str, Any]]:
    """Name -> user attributes of one of its studies, newest first."""
    summaries = optuna.get_all_study_summaries(storage, include_best_trial=False)
    found: dict[str, dict[str, Any]] = {}
    for summary in reversed(summaries):
        attributes = summary.user_attrs
        if "search" in attributes and "fingerprint" in attributes:
            found.setdefault(attributes["search"], attributes)
    return found
