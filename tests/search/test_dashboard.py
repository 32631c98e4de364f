"""What the dashboard makes of a search: its verdicts, its answer, notes and links."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import optuna_dashboard
import pytest
from dashboard_api import served
from optuna.trial import FrozenTrial
from search_helpers import DEGRADED, attributes, outcome

from postgresql_server import PostgreSQL
from redline.dashboard.judged_storage import open_judged
from redline.errors import UserError
from redline.search.policy.answer import variant_result
from redline.search.policy.state import Question, search_state
from redline.search.policy.verdicts import Point
from redline.search.result import VariantResult
from redline.search.store.notes import write_note
from redline.search.store.owner import Owner
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy

LADDER = (0.1, 0.2, 0.4, 0.8)
SRC = Path(__file__).parents[2] / "src"


@pytest.fixture
def study(url: str) -> VariantStudy:
    return VariantStudy(open_storage(url, timeout=60.0), "search/qk", attributes(LADDER))


def ended(study: VariantStudy, *ends: str | float) -> list[FrozenTrial]:
    """A finished trial for each end, rung by rung: the rule that broke, or a score."""
    claims = []
    for rung, end in enumerate(ends):
        claim = study.claim(Point(rung, 0), Owner.here())
        assert claim is not None
        reason, loss = (end, None) if isinstance(end, str) else (None, end)
        study.finish(claim, outcome(LADDER[rung], reason=reason, val_loss=loss), reason)
        claims.append(claim)
    return claims


def answer(study: VariantStudy) -> VariantResult:
    question = Question(LADDER, 1, "majority", doubt=1.0)
    return variant_result(search_state(question, DEGRADED, study.state().outcomes), study.facts)


def infeasible(detail: dict) -> list[bool]:
    return [any(value > 0 for value in trial["constraints"]) for trial in detail["trials"]]


def best(detail: dict) -> list[int]:
    return [trial["number"] for trial in detail["best_trials"]]


def test_a_verdict_that_a_later_trial_turned_is_shown(study: VariantStudy, url: str) -> None:
    """Optuna closes finished trials, so the storage itself still says stable."""
    ended(study, 4.3, 4.0, 4.4)
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
    assert "**stable** by itself" in detail["trials"][2]["note"]["body"]  # which stays true


def test_what_is_stored_is_not_changed_by_looking(study: VariantStudy, url: str) -> None:
    ended(study, 4.3, 4.0, 4.4)
    before = (study.trials(), study.storage.get_study_system_attrs(study.study._study_id))
    served(open_judged(url), study)
    assert (study.trials(), study.storage.get_study_system_attrs(study.study._study_id)) == before


def test_a_study_of_somebody_else_or_begun_by_half_is_shown_as_it_is(study: VariantStudy, url: str) -> None:
    other = optuna.create_study(storage=study.storage, study_name="other")
    other.set_user_attr("ladder", [1, 2])
    other.add_trial(optuna.trial.create_trial(value=3.0))
    storage = open_judged(url)
    assert [trial.values for trial in storage.get_all_trials(other._study_id)] == [[3.0]]


def test_above_the_edge_of_another_key_nothing_is_feasible(url: str) -> None:
    begun = attributes(LADDER, key="optimizer.weight_decay", label="weight decay")
    study = VariantStudy(open_storage(url, timeout=60.0), "search/qk", begun)
    ended(study, 4.0, "blow_up", 4.0)
    study.answer(answer(study))
    assert infeasible(served(open_judged(url), study)) == [False, True, True]


def test_the_best_trial_is_the_answer_where_a_rate_above_it_is_stable_again(
    study: VariantStudy, url: str
) -> None:
    ended(study, 4.0, 4.0, "blow_up", 4.0)
    assert best(served(open_judged(url), study)) == [3]  # as far as is known
    study.answer(answer(study))
    detail = served(open_judged(url), study)
    assert best(detail) == [1]
    assert infeasible(detail) == [False, False, True, True]


def test_the_dashboard_names_what_it_draws(study: VariantStudy) -> None:
    assert served(study.storage, study)["objective_names"] == ["stable LR"]


def test_the_dashboard_opens_on_a_study_without_a_stable_or_without_a_finished_trial(
    study: VariantStudy, url: str
) -> None:
    assert served(open_judged(url), study)["best_trials"] == []
    ended(study, "blow_up")
    assert infeasible(served(open_judged(url), study)) == [True]


def test_a_trials_note_links_to_its_page_while_it_runs_and_names_its_verdict_when_it_has_ended(
    study: VariantStudy,
) -> None:
    claim = study.claim(Point(1, 0), Owner.here())
    assert claim is not None
    study.link(claim, "http://tracking:5000/#/runs/abc")
    link = "(http://tracking:5000/#/runs/abc)"
    running = served(study.storage, study)["trials"][0]["note"]["body"]
    assert running.startswith("**qk**, lr 0.2, seed 0\n")
    assert link in running
    page = "http://tracking:5000/#/runs/def"
    study.finish(claim, replace(outcome(0.2, reason="blow_up"), page=page), "blow_up")
    finished = served(study.storage, study)["trials"][0]["note"]["body"]
    assert "**diverged** by `blow_up` at step 9" in finished
    assert page in finished


def test_a_trial_without_a_page_has_no_link(study: VariantStudy) -> None:
    ended(study, 4.0)
    assert "](" not in served(study.storage, study)["trials"][0]["note"]["body"]


@pytest.mark.parametrize(
    ("ends", "note"),
    [
        ((4.3, 4.0, 4.4), "Largest stable LR: **0.2**. First diverged: 0.4, by `degraded`."),
        ((4.0, "blow_up", 4.0), "First diverged: 0.2, by `blow_up`. Stable again above it: 0.4."),
        (("blow_up",), "The lowest rung diverged: the ladder begins too high for an answer."),
        ((4.0, 4.0, 4.0, 4.0), "Every rung of the ladder is stable: it ends too low for an answer."),
    ],
)
def test_a_studys_note_is_its_answer(study: VariantStudy, ends: tuple[str | float, ...], note: str) -> None:
    ended(study, *ends)
    study.answer(answer(study))
    assert note in optuna_dashboard.get_note(study.study)


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
    study = VariantStudy(open_storage(url, timeout=60.0), "search/qk", attributes(LADDER))
    ended(study, 4.0, "blow_up")
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
