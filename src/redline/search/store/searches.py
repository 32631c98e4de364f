"""Which searches a storage holds: their names, and whether a command goes on with one."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.storages import BaseStorage

from redline.errors import UserError
from redline.search.store.study import VariantStudy
from redline.search.variant import Variant

_LONGEST_NAME = 60  # characters of a default name, before its time


def choose_name(storage: BaseStorage, asked_name: str | None, asked: str, variants: Sequence[str]) -> str:
    """The search to work on: the one named, an unfinished one that asks the same, or a new one.

    ``asked`` is the command's fingerprint. Raises UserError where the name belongs to another question.
    """
    known = _searches(storage)
    if asked_name is not None:
        if "/" in asked_name:
            raise UserError(f"search.name={asked_name}: allowed: a name without /")
        if asked_name in known and known[asked_name]["fingerprint"] != asked:
            raise UserError(
                f"search.name={asked_name}: was begun with other variants, ladder, seeds or settings; "
                "allowed: the same command, or another name"
            )
        return asked_name
    for name, facts in known.items():
        if facts["fingerprint"] == asked and not facts.get("finished"):
            return name
    stem = "-".join(variant.replace(", ", "-").replace("/", "-") for variant in variants)[:_LONGEST_NAME]
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def open_studies(
    storage: BaseStorage,
    name: str,
    asked: str,
    variants: Sequence[Variant],
    ladder: Sequence[float],
    seeds: int,
    precision: Mapping[str, str],
) -> dict[str, VariantStudy]:
    """A study per variant, begun where there is none. The first to come pins the precision."""
    studies = {}
    for variant in variants:
        facts = {
            "search": name,
            "variant": variant.name,
            "fingerprint": asked,
            "ladder": list(ladder),
            "seeds": seeds,
            "precision": precision[variant.name],
            "max_steps": variant.cfg.trainer.max_steps,
            "mlflow_ui": OmegaConf.select(variant.cfg, "search.mlflow_ui"),
        }
        studies[variant.name] = VariantStudy(
            storage, f"{name}/{variant.name}", ladder, facts, first_seed=variant.cfg.seed
        )
    return studies


def forget_end(storage: BaseStorage, name: str, variants: Sequence[str]) -> None:
    """Take back that a search has ended, so that whoever ends it next is seen to."""
    for study_id in _study_ids(storage, name, variants).values():
        storage.set_study_user_attr(study_id, "finished", False)


def finished_entries(storage: BaseStorage, name: str, variants: Sequence[str]) -> dict[str, Any] | None:
    """Every variant's entry of `result.json`, as whoever ended the search stored it; None before its end."""
    facts = {
        variant: storage.get_study_user_attrs(study_id)
        for variant, study_id in _study_ids(storage, name, variants).items()
    }
    if not all(variant in facts and facts[variant].get("finished") for variant in variants):
        return None
    return {variant: facts[variant]["result"] for variant in variants}


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
