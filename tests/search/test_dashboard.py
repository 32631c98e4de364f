"""What the dashboard makes of a search: its trials' states, its answer, notes and links."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna_dashboard
import pytest
from dashboard_api import served
from optuna.trial import FrozenTrial
from search_helpers import attributes, outcome

from postgresql_server import PostgreSQL
from redline.dashboard.storage import open_begun
from redline.errors import UserError
from redline.search.policy.points import Point
from redline.search.result import Ratio, VariantResult
from redline.search.store.notes import write_note
from redline.search.store.owner import Owner
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy
from redline.stability import Cut
from result_helpers import OLD_VARIANT, made_variant

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
        study.finish(claim, outcome(LADDER[rung], reason=reason, val_loss=loss))
        claims.append(claim)
    return claims


def infeasible(detail: dict) -> list[bool]:
    return [any(value > 0 for value in trial["constraints"]) for trial in detail["trials"]]


def best(detail: dict) -> list[int]:
    return [trial["number"] for trial in detail["best_trials"]]


def test_a_trials_state_is_its_own_and_the_best_is_the_largest_stable_one(
    study: VariantStudy, url: str
) -> None:
    """Whether a trial is lost is the curve's to say: its state does not change after it has ended."""
    ended(study, 4.3, 4.0, 5.4, "blow_up")
    detail = served(open_begun(url), study)
    assert best(detail) == [2]
    assert infeasible(detail) == [False, False, False, True]
    assert [trial["values"] for trial in detail["trials"]] == [[0.1], [0.2], [0.4], [0.0]]


def test_a_trial_that_was_cut_is_greyed_and_says_so(study: VariantStudy, url: str) -> None:
    ended(study, 4.0)
    claim = study.claim(Point(1, 0), Owner.here())
    assert claim is not None
    study.finish(claim, replace(outcome(0.2, val_loss=None), cut=Cut(5.0, 0.1)))
    detail = served(open_begun(url), study)
    assert best(detail) == [0]
    assert infeasible(detail) == [False, True]
    assert "**cut** at step 9" in detail["trials"][1]["note"]["body"]


def test_what_is_stored_is_not_changed_by_looking(study: VariantStudy, url: str) -> None:
    ended(study, 4.3, 4.0, "blow_up")
    before = (study.trials(), study.storage.get_study_system_attrs(study.study._study_id))
    served(open_begun(url), study)
    assert (study.trials(), study.storage.get_study_system_attrs(study.study._study_id)) == before


def test_the_dashboard_names_what_it_draws(study: VariantStudy) -> None:
    assert served(study.storage, study)["objective_names"] == ["stable LR"]


def test_the_dashboard_opens_on_a_study_without_a_stable_or_without_a_finished_trial(
    study: VariantStudy, url: str
) -> None:
    assert served(open_begun(url), study)["best_trials"] == []
    ended(study, "blow_up")
    assert infeasible(served(open_begun(url), study)) == [True]


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
    study.finish(claim, replace(outcome(0.2, reason="blow_up"), page=page))
    finished = served(study.storage, study)["trials"][0]["note"]["body"]
    assert "**diverged** by `blow_up` at step 9" in finished
    assert page in finished


def test_a_trial_without_a_page_has_no_link(study: VariantStudy) -> None:
    ended(study, 4.0)
    assert "](" not in served(study.storage, study)["trials"][0]["note"]["body"]


@pytest.mark.parametrize(
    ("result", "note"),
    [
        (
            made_variant(0.54, 1.5),
            "Largest useful LR: **0.54**, 0.43–0.68 with 90%, on the ladder 0.4. "
            "Largest stable LR: **1.5**, 1.2–1.9 with 90%, on the ladder 0.8. "
            "First diverged: 3, by `blow_up`. The search ended by: resolution.",
        ),
        (
            made_variant(None, None, censored="above", stable_censored="above", first_diverged_lr=None),
            "The largest useful LR lies above all that was tried. "
            "The largest stable LR lies above all that was tried. The search ended by: resolution.",
        ),
        (made_variant(None, open=(0.2, 0.4)), "Runs at 0.2, 0.4 crashed too often and were left open."),
        (made_variant(ratio=Ratio("q*k", 1.7, (1.2, 2.4))), "1.70 times the LR of q\\*k (1.2–2.4 with 90%)."),
        (
            VariantResult.from_dict(OLD_VARIANT),
            "An old answer (version 1), without points on a curve. "
            "Largest useful LR: 0.19–0.42 with 90%, on the ladder 0.2. First diverged: 0.4, by `degraded`.",
        ),
    ],
)
def test_a_studys_note_is_its_answer(study: VariantStudy, result: VariantResult, note: str) -> None:
    study.answer(result)
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
    assert best(served(open_begun(url), study)) == [0]


@pytest.mark.parametrize(
    "storage", ["sqlite:///none.db", "nonsense", "postgresql://me:secret@localhost:1/none"]
)
def test_a_storage_that_is_not_there_is_the_users_mistake(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^storage.*; allowed: ") as refused:
        open_begun(storage)
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
