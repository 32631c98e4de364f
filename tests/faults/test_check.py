"""The check of a disturbed search finds what it is to find."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from check import different_answers, running_runs, wrong_trials
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

ANSWER = {
    "qk": {
        "max_useful_lr": 0.15,
        "max_useful_lr_90": [0.1, 0.2],
        "max_stable_lr": 0.15,
        "max_stable_lr_90": [0.1, 0.2],
        "max_useful_rung": 0.1,
        "first_diverged_lr": 0.2,
        "censored": None,
        "stable_censored": None,
        "val_losses": {"0": 4.123456789, "1": 4.2},
        "first_diverged_reason": "blow_up",
        "trials": 3,
    }
}
OUTCOME = {
    "reason": "non_finite",
    "step": 9,
    "val_loss": None,
    "initial_loss": 6.0,
    "train_loss": float("nan"),
    "spikes": 0,
    "page": "a",
}


def trial(lr: float, state: TrialState = TrialState.COMPLETE, **changed: Any) -> FrozenTrial:
    return create_trial(
        state=state,
        value=lr if state == TrialState.COMPLETE else None,
        params={"lr": lr, "seed": 0},
        distributions={"lr": FloatDistribution(0.01, 1), "seed": IntDistribution(0, 9)},
        user_attrs={"outcome": {**OUTCOME, **changed}},
    )


def test_an_answer_may_differ_only_in_what_it_cost_and_in_the_seeds_run() -> None:
    fewer_seeds = {"trials": 5, "val_losses": {"0": 4.123456789}}
    assert different_answers({"qk": {**ANSWER["qk"], **fewer_seeds}}, ANSWER) == []
    found = different_answers({"qk": {**ANSWER["qk"], "val_losses": {"0": 4.123456788}}}, ANSWER)
    assert found == ["qk: val_losses[0] is 4.123456788, not 4.123456789"]
    assert different_answers({}, ANSWER)


def test_trials_that_failed_and_other_runs_of_the_tracker_are_fine() -> None:
    found = [trial(0.1, page="b"), trial(0.2, TrialState.FAIL), trial(0.2), trial(0.4)]
    assert wrong_trials({"qk": found}, {"qk": [trial(0.1), trial(0.2)]}) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([trial(0.1), trial(0.1)], "is a second finished one"),
        ([trial(0.1), trial(0.2, TrialState.RUNNING)], "is RUNNING"),
        ([trial(0.1), trial(0.2, TrialState.WAITING)], "is WAITING"),
        ([trial(0.1, reason="blow_up")], "reason is 'blow_up', not 'non_finite'"),
        ([trial(0.1, train_loss=1.0)], "train_loss is 1.0, not nan"),
    ],
)
def test_a_trial_that_a_fault_has_changed_is_found(found: list[FrozenTrial], words: str) -> None:
    (problem,) = wrong_trials({"qk": found}, {"qk": [trial(0.1)]})
    assert words in problem


def test_a_run_that_claims_to_run_is_found(tmp_path: Path) -> None:
    assert running_runs(tmp_path / "none.db") == []
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("CREATE TABLE runs (run_uuid, status)")
        connection.execute("INSERT INTO runs VALUES ('a', 'FINISHED'), ('b', 'RUNNING'), ('c', 'KILLED')")
        connection.commit()
    assert running_runs(tmp_path / "mlflow.db") == ["MLflow's run b claims to run"]
