"""What the dashboard makes of a search: its verdicts, its answer, notes and links."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna_dashboard
import pytest
from dashboard_api import served
from search_helpers import outcome

from postgresql_server import PostgreSQL
from redline.dashboard.judged_storage import open_judged
from redline.errors import UserError
from redline.search.policy.verdicts import Point
from redline.search.store.notes import write_note
from redline.search.store.owner import Owner
from redline.search.store.storage import open_storage
from redline.search.store.study import Claim, VariantStudy

LADDER = [0.1, 0.2, 0.4, 0.8]
FACTS = {"search": "search", "variant": "qk", "mlflow_ui": "http://tracking:5000/"}
ANSWER = {
    "max_stable_lr": 0.2,
    "first_diverged_lr": 0.4,
    "first_diverged_reason": "degraded",
    "censored": None,
    "stable_above": [0.8],
    "open": [],
}
SRC = Path(__file__).parents[2] / "src"


@pytest.fixture
def study(url: str) -> VariantStudy:
    return VariantStudy(open_storage(url, patience=60.0), "search/qk", LADDER, FACTS)


def ended(study: VariantStudy, *reasons: str | None) -> list[Claim]:
    """A finished trial for each reason, rung by rung."""
    claims = []
    for rung, reason in enumerate(reasons):
        claim = study.claim(Point(rung, 0), Owner.here())
        assert claim is not None
        study.finish(claim, outcome(LADDER[rung], reason=reason), reason)
        claims.append(claim)
    return claims


def infeasible(detail: dict) -> list[bool]:
    return [any(value > 0 for value in trial["constraints"]) for trial in detail["trials"]]


def best(detail: dict) -> list[int]:
    return [trial["number"] for trial in detail["best_trials"]]


def test_a_verdict_that_rule_five_turned_after_its_trial_had_ended_is_shown(
    study: VariantStudy, url: str
) -> None:
    """Optuna closes finished trials, so the storage itself still says stable."""
    ended(study, None, None, None)
    study.set_late_verdicts({2: "degraded"})
    assert best(served(study.storage, study)) == [2]
    detail = served(open_judged(url), study)
    assert best(detail) == [1]
    assert infeasible(detail) == [False, False, True]
    assert [trial["values"] for trial in detail["trials"]] == [[0.1], [0.2], [0.0]]
    told = [{its["key"]: its["value"] for its in trial["user_attrs"]} for trial in detail["trials"]]
    assert [(its["verdict"], its["reason"]) for its in told[1:]] == [
        ("stable", "null"),
        ("diverged", "degraded"),
    ]
    assert "turned" not in detail["trials"][1]["note"]["body"]
    assert "**diverged** by `degraded`: it ended stable" in detail["trials"][2]["note"]["body"]


def test_the_best_trial_is_the_answer_where_a_rate_above_it_is_stable_again(
    study: VariantStudy, url: str
) -> None:
    ended(study, None, None, "degraded", None)
    assert best(served(open_judged(url), study)) == [3]  # as far as is known
    study.answer(ANSWER)
    detail = served(open_judged(url), study)
    assert best(detail) == [1]
    assert infeasible(detail) == [False, False, True, True]


def test_the_dashboard_names_what_it_draws(study: VariantStudy) -> None:
    assert served(study.storage, study)["objective_names"] == ["stable learning rate"]


def test_the_dashboard_opens_on_a_study_without_a_stable_or_without_a_finished_trial(
    study: VariantStudy, url: str
) -> None:
    assert served(open_judged(url), study)["best_trials"] == []
    ended(study, "blow_up")
    assert infeasible(served(open_judged(url), study)) == [True]


def test_a_trial_that_ended_before_mlflow_had_its_run_is_linked_later(study: VariantStudy) -> None:
    for rung, key in enumerate(("known later", "never known")):
        claim = study.claim(Point(rung, 0), Owner.here())
        assert claim is not None
        study.finish(claim, replace(outcome(LADDER[rung]), run_key=key), None)
    study.set_late_verdicts({0: "degraded"})
    study.link({"known later": "abc", "another search's": "def"})
    later, never = (trial["note"]["body"] for trial in served(study.storage, study)["trials"])
    assert "(http://tracking:5000/#/runs/abc)" in later
    assert "**diverged** by `degraded`: it ended stable" in later
    assert "/#/runs/" not in never


def test_a_trials_note_links_to_its_run_while_it_runs_and_names_its_verdict_when_it_has_ended(
    study: VariantStudy,
) -> None:
    claim = study.claim(Point(1, 0), Owner.here())
    assert claim is not None
    study.track(claim, "abc")
    link = "(http://tracking:5000/#/runs/abc)"
    running = served(study.storage, study)["trials"][0]["note"]["body"]
    assert running.startswith("**qk**, lr 0.2, seed 0\n")
    assert link in running
    study.finish(claim, outcome(0.2, reason="blow_up"), "blow_up")
    finished = served(study.storage, study)["trials"][0]["note"]["body"]
    assert "**diverged** by `blow_up` at step 9" in finished


def test_a_studys_note_is_its_answer_and_names_the_verdicts_that_changed(study: VariantStudy) -> None:
    ended(study, None, None, None)
    study.set_late_verdicts({2: "degraded"})
    study.answer(ANSWER)
    note = optuna_dashboard.get_note(study.study)
    assert "Largest stable learning rate: **0.2**. First diverged: 0.4, by `degraded`." in note
    assert "trial 2 (lr 0.4, `degraded`)" in note


def test_what_a_person_wrote_below_the_line_outlives_our_note_and_long_notes_fit(study: VariantStudy) -> None:
    study_id = study.study._study_id
    write_note(study.storage, study_id, None, "before " * 700)
    long = optuna_dashboard.get_note(study.study)
    assert long.startswith("before " * 700)
    optuna_dashboard.save_note(study.study, long + "Mine.")
    write_note(study.storage, study_id, None, "after")
    assert optuna_dashboard.get_note(study.study) == "after\n\n---\nMine."


def test_a_postgresql_storage_opens_by_the_searchs_own_url(postgresql: PostgreSQL) -> None:
    url = postgresql.url(postgresql.new_database())
    study = VariantStudy(open_storage(url, patience=60.0), "search/qk", LADDER, FACTS)
    ended(study, None, "blow_up")
    assert best(served(open_judged(url), study)) == [0]


@pytest.mark.parametrize(
    "storage", ["sqlite:///none.db", "nonsense", "postgresql://me:secret@localhost:1/none"]
)
def test_a_storage_that_is_not_there_is_the_users_mistake(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^storage.*; allowed: ") as refused:
        open_judged(storage)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_a_mistake_in_one_line(tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "redline.dashboard"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: storage=sqlite:///mlruns/optuna.db: no such file; ")
    assert refused.stderr.count("\n") == 1
