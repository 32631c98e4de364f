"""From the stores to a `Search`."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import make_url

from redline.errors import UserError
from redline.report.search import Curves, Run, Search, Variant
from redline.report.stores import Stores, default_stores
from redline.report.tracking import open_curves
from redline.search.policy.verdicts import Point, bracket, rung_verdicts
from redline.search.store.storage import open_storage
from redline.stability import Outcome

_PATIENCE = 10.0  # seconds that a storage which goes away is waited for
_NAMED = 10  # searches that an error names
_SCOUT = " (scout)"


def load_search(
    name: str | None = None,
    *,
    storage: str | None = None,
    tracking_uri: str | None = None,
    searches: str | Path | None = None,
) -> Search:
    """The search ``name``, or the latest one, finished or not; curves are read when they are asked for.

    ``storage`` (Optuna's), ``tracking_uri`` (MLflow's) and ``searches`` (the folder of all ``result.json``)
    are by default where the configuration puts them. Raises UserError for an unknown name or storage.
    """
    default = default_stores()
    stores = Stores(
        default.storage if storage is None else storage,
        default.tracking_uri if tracking_uri is None else tracking_uri,
        default.searches if searches is None else Path(searches),
    )
    return read_search(stores, name)


def read_search(stores: Stores, name: str | None = None, directory: Path | None = None) -> Search:
    """As `load_search`; ``directory`` is the search's own folder, where it is not in ``stores.searches``."""
    storage = _open(stores.storage)
    known = _searches(storage)
    name = _choose(name, known, stores.storage)
    result = _read_result((directory or stores.searches / name) / "result.json")
    curves = open_curves(stores.tracking_uri)
    variants = tuple(_variant(storage, summary, result, curves) for summary in known[name])
    facts = known[name][0].user_attrs
    return Search(
        name=name,
        ladder=tuple(facts["ladder"]),
        seeds=facts["seeds"],
        variants=variants,
        finished=all(variant.entry is not None for variant in variants),
        curves=curves,
    )


def _open(url: str) -> BaseStorage:
    if url.startswith("sqlite:"):
        file = make_url(url).database
        # Opening it would make it.
        if file is None or not Path(file).is_file():
            raise UserError(f"storage={url}: not there; allowed: the storage of a search that was run")
    return open_storage(url, _PATIENCE)


def _searches(storage: BaseStorage) -> dict[str, list[Any]]:
    """Name -> the summaries of its variants' studies; the latest search last."""
    found: dict[str, list[Any]] = {}
    for summary in optuna.get_all_study_summaries(storage, include_best_trial=False):
        facts = summary.user_attrs
        if {"search", "variant", "ladder"} <= facts.keys() and not facts["variant"].endswith(_SCOUT):
            found.setdefault(facts["search"], []).append(summary)
    return found


def _choose(name: str | None, known: Mapping[str, Any], storage: str) -> str:
    names = list(known)
    if not names:
        shown = make_url(storage).render_as_string(hide_password=True)
        raise UserError(f"storage={shown}: holds no search; allowed: the storage of a search that was run")
    if name is None:
        return names[-1]
    if name not in known:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        latest = ", ".join(names[: -_NAMED - 1 : -1])
        more = f" and {len(names) - _NAMED} older ones" if len(names) > _NAMED else ""
        raise UserError(f"search={name}: unknown{hint}; allowed: {latest}{more}")
    return name


def _read_result(path: Path) -> Mapping[str, Any]:
    """The variants' entries; none where the search has not ended."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())["variants"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is no search's result ({type(error).__name__}); the search writes it"
        ) from None


def _variant(storage: BaseStorage, summary: Any, result: Mapping[str, Any], curves: Curves) -> Variant:
    facts = summary.user_attrs
    trials = storage.get_all_trials(summary._study_id, deepcopy=False)
    runs = _runs(facts["search"], trials, facts.get("late_verdicts", {}), curves)
    # Where another machine ended the search, its result is in the storage alone.
    entry = result.get(facts["variant"], facts.get("result") if facts.get("finished") else None)
    if entry is None:
        stable, diverged = _edge_so_far(runs, facts["ladder"], facts["seeds"])
    else:
        stable, diverged = entry["max_stable_lr"], entry["first_diverged_lr"]
    return Variant(
        name=facts["variant"],
        max_steps=facts["max_steps"],
        precision=facts["precision"],
        runs=runs,
        max_stable_lr=stable,
        first_diverged_lr=diverged,
        entry=entry,
    )


_RANK = {TrialState.COMPLETE: 0, TrialState.RUNNING: 1, TrialState.FAIL: 2}


def _runs(
    search: str, trials: Sequence[FrozenTrial], late: Mapping[str, str], curves: Curves
) -> tuple[Run, ...]:
    """One run a point: a finished trial before a running one before a crash, and the first of each."""
    shown = [trial for trial in trials if trial.state in _RANK]
    chosen: dict[tuple[float, int], Run] = {}
    for trial in sorted(shown, key=lambda trial: (_RANK[trial.state], trial.number)):
        if trial.state != TrialState.FAIL or trial.user_attrs.get("failure") == "crash":
            point = (trial.params["lr"], trial.params["seed"])
            chosen.setdefault(point, _run(search, trial, late.get(str(trial.number)), curves))
    return tuple(chosen[point] for point in sorted(chosen))


def _run(search: str, trial: FrozenTrial, late: str | None, curves: Curves) -> Run:
    ended = Outcome(**trial.user_attrs["outcome"]) if trial.state == TrialState.COMPLETE else None
    reported = trial.intermediate_values
    last = max(reported, default=None)
    common: dict[str, Any] = {
        "lr": trial.params["lr"],
        "seed": trial.params["seed"],
        "started": trial.datetime_start,
        "ended": trial.datetime_complete,
        "curves": curves,
    }
    if ended is None:
        return Run(
            verdict="running" if trial.state == TrialState.RUNNING else "crashed",
            reason=None,
            step=last,
            optimizer_steps=0 if last is None else last,
            train_loss=None if last is None else reported[last],
            val_loss=None,
            val_perplexity=None,
            initial_loss=None,
            seconds=None,
            run_id=trial.user_attrs.get("run_id"),
            **common,
        )
    reason = late or trial.user_attrs["reason"]
    return Run(
        verdict="diverged" if reason else "stable",
        reason=reason,
        step=ended.step,
        optimizer_steps=ended.optimizer_steps,
        train_loss=ended.train_loss,
        val_loss=ended.val_loss,
        val_perplexity=ended.val_perplexity,
        initial_loss=ended.initial_loss,
        seconds=ended.seconds,
        run_id=ended.run_id or (ended.run_key and curves.run_id(search, ended.run_key)),
        **common,
    )


def _edge_so_far(
    runs: Sequence[Run], ladder: Sequence[float], seeds: int
) -> tuple[float | None, float | None]:
    """The bracket's ends while a search is under way, by a majority of the seeds."""
    first_seed = min((run.seed for run in runs), default=0)
    verdicts = {
        Point(ladder.index(run.lr), run.seed - first_seed): run.reason for run in runs if run.finished
    }
    ends = bracket(rung_verdicts(verdicts, len(ladder), seeds, "majority"))
    stable = None if ends.stable < 0 else ladder[ends.stable]
    return stable, None if ends.diverged == len(ladder) else ladder[ends.diverged]
