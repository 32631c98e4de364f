"""What must hold of a search that was struck by faults: everything is as if nothing had happened."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from subject import Subject

from redline.search.store.storage import open_storage

_ANSWER = ("max_useful_lr", "max_useful_lr_90", "max_stable_lr", "max_stable_lr_90", "max_useful_rung")
_ANSWER += ("first_diverged_lr", "censored", "stable_censored", "first_diverged_reason")
_OUTCOME = ("reason", "step", "val_loss", "initial_loss", "train_loss", "spikes")


def problems(disturbed: Subject, undisturbed: Subject) -> list[str]:
    """What is wrong with a search, given the same search undisturbed."""
    return [
        *different_answers(answer(disturbed.result), answer(undisturbed.result)),
        *wrong_trials(trials(disturbed.storage), trials(undisturbed.storage)),
        *running_runs(disturbed.folder / "mlruns" / "mlflow.db"),
        *left_processes(disturbed),
        *(f"{path}: half written" for path in disturbed.directory.glob("result.json.*")),
    ]


def answer(path: Path) -> dict[str, Any]:
    """The variants of a `result.json`; empty where there is none."""
    return json.loads(path.read_text())["variants"] if path.exists() else {}


def different_answers(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    if found.keys() != expected.keys():
        return [f"result.json has the variants {list(found)}, not {list(expected)}"]
    return [
        f"{name}: {key} is {its!r}, not {expected_its!r}"
        for name in expected
        for key, its, expected_its in _compared(found[name], expected[name])
        if its != expected_its
    ]


def _compared(found: dict[str, Any], expected: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What must agree. Which seeds have run at the edge, and so the mean over them, is the order's doing."""
    for key in _ANSWER:
        yield key, found[key], expected[key]
    for seed in sorted(found["val_losses"].keys() & expected["val_losses"].keys()):
        yield f"val_losses[{seed}]", found["val_losses"][seed], expected["val_losses"][seed]


def trials(url: str) -> dict[str, list[FrozenTrial]]:
    """Of every study in a storage."""
    storage = open_storage(url, timeout=60.0)
    studies = optuna.get_all_study_names(storage)
    return {name: optuna.load_study(study_name=name, storage=storage).trials for name in studies}


def wrong_trials(found: dict[str, list[FrozenTrial]], expected: dict[str, list[FrozenTrial]]) -> list[str]:
    """Points finished twice, trials that never ended, and outcomes that a fault has changed."""
    wrong = []
    for study, its in found.items():
        others = {_point(trial): trial for trial in expected.get(study, []) if trial.state.name == "COMPLETE"}
        finished = set()
        for trial in its:
            where = f"{study}: trial {trial.number} at {_point(trial)}"
            if not trial.state.is_finished():
                wrong.append(f"{where} is {trial.state.name}")
            if trial.state != TrialState.COMPLETE:
                continue
            if _point(trial) in finished:
                wrong.append(f"{where} is a second finished one")
            finished.add(_point(trial))
            if _point(trial) in others:
                outcome, other = trial.user_attrs["outcome"], others[_point(trial)].user_attrs["outcome"]
                wrong += [
                    f"{where}: {key} is {outcome[key]!r}, not {other[key]!r}"
                    for key in _OUTCOME
                    if repr(outcome[key]) != repr(other[key])  # NaN is like NaN
                ]
    return wrong


def running_runs(store: Path) -> list[str]:
    """MLflow runs that still claim to run, where there is a store."""
    if not store.exists():
        return []
    with closing(sqlite3.connect(store)) as connection:
        rows = connection.execute("SELECT run_uuid FROM runs WHERE status = 'RUNNING'").fetchall()
    return [f"MLflow's run {run} claims to run" for (run,) in rows]


def left_processes(subject: Subject) -> list[str]:
    _until(lambda: not subject.processes())  # taking an interpreter with torch apart takes a while
    return [f"left behind: {process}" for process in subject.processes()]


def _point(trial: FrozenTrial) -> tuple[float, int]:
    return trial.params["lr"], trial.params["seed"]


def _until(true: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
