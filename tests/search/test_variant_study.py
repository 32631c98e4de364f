"""Claims and outcomes in a real SQLite file, and what Optuna and its dashboard make of them."""

import json
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import optuna
import pytest
from dashboard_api import served
from open_all import facts_of_each
from optuna.trial import FrozenTrial, TrialState
from search_helpers import attributes, cut_outcome, outcome, reopened

from redline.errors import UserError
from redline.search.policy.points import Point
from redline.search.store.owner import Owner, Silence
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy
from redline.search.trainable import Facts
from redline.stability import Outcome

LADDER = [0.1, 0.2, 0.4]
CLAIM_ALL = Path(__file__).with_name("claim_all.py")
PYTHONPATH = os.pathsep.join(str(path) for path in (Path(__file__).parents[2] / "src", CLAIM_ALL.parent))


@pytest.fixture
def study(url: str) -> VariantStudy:
    return VariantStudy(open_storage(url, timeout=60.0), "search/qk", attributes(LADDER), first_seed=7)


def taken(study: VariantStudy, rung: int = 0, seed: int = 0) -> FrozenTrial:
    claim = study.claim(Point(rung, seed), Owner.here())
    assert claim is not None
    return claim


def test_a_claim_is_a_running_trial_with_its_rate_and_seed(study: VariantStudy) -> None:
    claim = taken(study, rung=1, seed=2)
    (trial,) = study.trials()
    assert trial.state == TrialState.RUNNING
    assert trial.params == {"lr": 0.2, "seed": 9}
    assert study.point_of(trial) == study.point_of(claim) == Point(1, 2)
    assert Owner(**trial.user_attrs["owner"]).pid == os.getpid()


@pytest.mark.parametrize("finished", [False, True])
def test_a_point_that_runs_or_is_finished_cannot_be_claimed(
    study: VariantStudy, url: str, finished: bool
) -> None:
    claim = taken(study)
    if finished:
        study.finish(claim, outcome(0.1))
    assert reopened(study, url).claim(Point(0, 0), Owner.here()) is None
    duplicate = study.trials()[1]
    assert (duplicate.state, duplicate.user_attrs["failure"]) == (TrialState.FAIL, "duplicate")
    assert not study.state().crashes  # losing a race is no crash
    taken(study, rung=1)


@pytest.mark.parametrize("failure", ["crash", "lost", "interrupted"])
def test_a_failed_point_can_be_claimed_again(study: VariantStudy, failure: str) -> None:
    study.fail(taken(study)._trial_id, failure)
    assert study.state().crashes == ({Point(0, 0): 1} if failure == "crash" else {})
    taken(study)


def test_of_many_processes_that_open_a_fresh_file_and_want_every_point_each_point_goes_to_one(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'fresh.db'}"
    (tmp_path / "barrier").mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, CLAIM_ALL, url, tmp_path / "barrier", "3"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": PYTHONPATH},
        )
        for _ in range(3)
    ]
    won: list[list[int]] = []
    for process in processes:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.stderr.read())
        won += json.loads(line)
    study = VariantStudy(open_storage(url, timeout=60.0), "search/qk", {})
    points = Counter((rung, seed) for rung, seed, _ in won)
    assert points == {(rung, seed): 1 for rung in range(3) for seed in range(2)}
    trials = study.trials()
    assert len(trials) == 3 * 6
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    assert sorted(trial.number for trial in running) == sorted(number for *_, number in won)
    for trial in trials:
        if trial not in running:
            assert (trial.state, trial.user_attrs["failure"]) == (TrialState.FAIL, "duplicate")
    owners = [Owner(**trial.user_attrs["owner"]) for trial in running]
    assert not any(owner.is_gone() for owner in owners)
    for process in processes:
        process.communicate("")
        assert process.returncode == 0
    assert all(owner.is_gone() for owner in owners)


def test_a_stable_run_has_its_rate_as_value_and_is_feasible(study: VariantStudy) -> None:
    assert study.finish(taken(study, rung=1), outcome(0.2))
    (trial,) = study.trials()
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.2)
    assert (trial.user_attrs["verdict"], trial.user_attrs["reason"]) == ("stable", None)


def test_the_dashboard_shows_diverged_trials_as_infeasible_and_the_edge_as_best(study: VariantStudy) -> None:
    for rung, reason in enumerate([None, None, "degraded"]):
        claim = taken(study, rung=rung)
        study.report(claim, 3, 5.5)
        study.finish(claim, outcome(LADDER[rung], reason=reason))
    detail = served(study.storage, study)
    assert [trial["values"] for trial in detail["trials"]] == [[0.1], [0.2], [0.0]]
    broken = [any(value > 0 for value in trial["constraints"]) for trial in detail["trials"]]
    assert broken == [False, False, True]
    assert all(trial["constraints"] for trial in detail["trials"])
    assert [best["number"] for best in detail["best_trials"]] == [1]
    assert detail["trials"][0]["intermediate_values"] == [{"step": 3, "value": 5.5}]


def test_the_dashboard_opens_on_odd_losses(study: VariantStudy) -> None:
    claim = taken(study)
    study.report(claim, 1, math.nan)
    study.finish(claim, outcome(0.1, reason="non_finite", val_loss=math.nan))
    assert served(study.storage, study)["trials"][0]["state"] == "Complete"


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, None])
def test_odd_losses_survive_storage(study: VariantStudy, url: str, odd: float | None) -> None:
    numbers = {} if odd is None else {"perplexity": odd}
    ended = Outcome(0.1, 7, "non_finite", 0, 1, odd, odd or 0.0, odd or 0.0, numbers=numbers, page="p")
    claim = taken(study)
    study.report(claim, 1, math.nan if odd is None else odd)
    study.finish(claim, ended)
    (found,) = reopened(study, url).state().outcomes.values()
    assert repr(found) == repr(ended)  # NaN is not equal to itself


def test_finishing_after_being_thought_dead_changes_nothing(study: VariantStudy, url: str) -> None:
    lost = taken(study)
    reopened(study, url).fail(lost._trial_id, "lost")
    again = taken(study)
    assert not study.finish(lost, outcome(0.1, val_loss=1.0))
    assert study.state().outcomes == {}
    assert study.finish(again, outcome(0.1, val_loss=2.0))
    assert not study.finish(again, outcome(0.1, val_loss=3.0))
    assert study.state().outcomes == {Point(0, 0): outcome(0.1, val_loss=2.0)}
    assert [trial.state for trial in study.trials()] == [TrialState.FAIL, TrialState.COMPLETE]


def test_signs_of_life_of_a_trial_that_was_taken_away_are_not_fatal(study: VariantStudy, url: str) -> None:
    """A machine that slept for a while must be able to go on with its other trials."""
    lost = taken(study)
    reopened(study, url).fail(lost._trial_id, "lost")
    study.note(lost, "heartbeat", 3)
    study.report(lost, 10, 4.0)
    study.note(lost, "steps", 3)
    study.link(lost, "http://curves/1")


def test_a_point_finished_twice_counts_once(study: VariantStudy) -> None:
    """Two machines that each thought the other dead: the first outcome is the one."""
    study.finish(taken(study), outcome(0.1, val_loss=2.0))
    finish_again(study, outcome(0.1, val_loss=3.0))
    assert study.state().outcomes == {Point(0, 0): outcome(0.1, val_loss=2.0)}


def finish_again(study: VariantStudy, ended: Outcome) -> None:
    """Another trial of the first one's point."""
    first = study.trials()[0]
    second = optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        value=0.0,
        params=first.params,
        distributions=first.distributions,
        user_attrs={**first.user_attrs, "outcome": asdict(ended)},
    )
    study.study.add_trial(second)


@pytest.mark.parametrize("cut_first", [True, False])
def test_of_a_cut_run_and_a_full_one_of_its_point_the_full_one_counts(
    study: VariantStudy, cut_first: bool
) -> None:
    full, cut = outcome(0.1, val_loss=2.0), cut_outcome(0.1)
    first, second = (cut, full) if cut_first else (full, cut)
    study.finish(taken(study), first)
    assert study.state().outcomes == {Point(0, 0): first}
    finish_again(study, second)
    assert study.state().outcomes == {Point(0, 0): full}


def test_a_cut_run_is_the_value_0_and_infeasible_and_says_why(study: VariantStudy, url: str) -> None:
    study.finish(taken(study, rung=0), outcome(0.1))
    assert study.finish(taken(study, rung=2), cut_outcome(0.4, steps=4))
    trial = study.trials()[1]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.0)
    assert (trial.user_attrs["verdict"], trial.user_attrs["reason"]) == ("cut", None)
    detail = served(study.storage, study)
    assert [any(its > 0 for its in trial["constraints"]) for trial in detail["trials"]] == [False, True]
    assert [best["number"] for best in detail["best_trials"]] == [0]
    notes = study.storage.get_study_system_attrs(study.study._study_id)
    assert "**cut** at step 3: it would have been lost" in notes[f"dashboard:{trial._trial_id}:note_str:0"]
    assert reopened(study, url).state().outcomes[Point(2, 0)] == cut_outcome(0.4, steps=4)


def test_a_point_whose_run_was_cut_can_be_run_to_its_end(study: VariantStudy, url: str) -> None:
    study.finish(taken(study), cut_outcome(0.1))
    again = taken(study)
    assert reopened(study, url).claim(Point(0, 0), Owner.here()) is None
    assert study.state().running.keys() == study.state().outcomes.keys() == {Point(0, 0)}
    study.finish(again, outcome(0.1, val_loss=2.0))
    assert study.state().outcomes == {Point(0, 0): outcome(0.1, val_loss=2.0)}
    assert study.claim(Point(0, 0), Owner.here()) is None


def test_the_curves_of_what_runs_or_has_an_outcome_are_its_windows(url: str) -> None:
    begun = attributes(LADDER, facts=asdict(Facts(max_steps=100)))
    study = VariantStudy(open_storage(url, timeout=60.0), "search/qk", begun)

    def report(claim: FrozenTrial, *means: float) -> None:
        for step, mean in reversed([*zip(study.window_ends, means, strict=False)]):
            study.report(claim, step, mean)

    stable, cut, crashed, odd = (taken(study, rung, seed) for rung, seed in [(0, 0), (1, 0), (0, 1), (1, 1)])
    taken(study, rung=2)
    report(stable, *map(float, range(50, 0, -1)))
    study.finish(stable, outcome(0.1))
    report(cut, 5.0, 5.5, 5.7)
    study.finish(cut, cut_outcome(0.2))
    report(crashed, 5.0)
    study.fail(crashed._trial_id, "crash")
    study.report(odd, 7, 5.0)  # no window ends there
    expected = {
        Point(0, 0): tuple(map(float, range(50, 0, -1))),
        Point(1, 0): (5.0, 5.5, 5.7),
        Point(2, 0): (),
    }
    assert reopened(study, url).state().curves == expected
    report(taken(study, rung=1), 5.0, 5.4)
    assert reopened(study, url).state().curves == {**expected, Point(1, 0): (5.0, 5.4)}


def test_where_the_length_is_not_known_no_intermediate_value_is_a_curve(url: str) -> None:
    begun = attributes(LADDER, facts=asdict(Facts()))
    study = VariantStudy(open_storage(url, timeout=60.0), "search/qk", begun)
    study.report(taken(study), 1, 5.0)
    taken(study, rung=1)
    assert study.state().curves == {}


def test_failing_a_finished_trial_leaves_it_finished(study: VariantStudy) -> None:
    claim = taken(study)
    study.finish(claim, outcome(0.1))
    study.fail(claim._trial_id, "lost")
    assert study.trials()[0].state == TrialState.COMPLETE
    assert not study.state().crashes


def test_a_study_keeps_what_it_was_begun_with(study: VariantStudy, url: str) -> None:
    """A later coordinator, with facts of its own, goes by the first one's."""
    other = attributes([1.0, 2.0], facts=asdict(Facts(max_steps=20, precision="bf16")), key="other")
    later = VariantStudy(open_storage(url, timeout=60.0), study.name, other, first_seed=7)
    assert (later.ladder, later.key, later.facts) == (LADDER, "lr", Facts(max_steps=10))
    assert later.study.user_attrs == attributes(LADDER)


def test_of_those_who_open_a_search_together_the_first_ones_facts_hold_for_all(tmp_path: Path) -> None:
    for facts in facts_of_each(f"sqlite:///{tmp_path / 'fresh.db'}", tmp_path):
        assert len(facts) == 1


def test_a_study_that_was_begun_by_half_is_completed(study: VariantStudy, url: str) -> None:
    storage = open_storage(url, timeout=60.0)
    half = optuna.create_study(storage=storage, study_name="search/half", direction="maximize")
    half.set_user_attr("ladder", [0.3, 0.5])
    completed = VariantStudy(storage, "search/half", attributes(LADDER))
    assert (completed.ladder, completed.facts.max_steps) == ([0.3, 0.5], 10)
    assert reopened(completed, url).ladder == [0.3, 0.5]


def test_another_key_than_the_learning_rate_is_searched_and_shown(url: str) -> None:
    begun = attributes(LADDER, key="optimizer.weight_decay", label="weight decay")
    study = VariantStudy(open_storage(url, timeout=60.0), "search/qk", begun)
    study.finish(taken(study, rung=1), outcome(0.2))
    (trial,) = study.trials()
    assert trial.params == {"optimizer.weight_decay": 0.2, "seed": 0}
    assert study.point_of(trial) == Point(1, 0)
    assert served(study.storage, study)["objective_names"] == ["stable weight decay"]


def test_the_steps_of_cancelled_trials_are_counted(study: VariantStudy) -> None:
    for rung, failure in enumerate(["cancelled", "cancelled", "crash"]):
        claim = taken(study, rung=rung)
        study.note(claim, "steps", 5 + rung)
        study.fail(claim._trial_id, failure)
    assert study.cancelled_steps() == 11


def test_a_dead_process_is_gone_and_a_living_or_foreign_one_is_not() -> None:
    assert not Owner.here().is_gone()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        here = Owner.here()
        started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        owner = Owner(here.host, child.pid, started, "claim")
        assert not owner.is_gone()
        # A pid that is used again is not the owner.
        assert Owner(here.host, child.pid, "12345", "claim").is_gone()
        # Of another machine's processes nothing is known.
        assert not Owner("another machine", child.pid, "12345", "claim").is_gone()
        child.kill()
        while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            pass
        assert owner.is_gone(), "a zombie counts as dead"
    finally:
        child.kill()
        child.communicate()
    assert owner.is_gone()


def test_silence_is_judged_by_our_own_clock_since_the_last_change() -> None:
    now = 1000.0
    silence = Silence(timeout=60, clock=lambda: now)
    assert not silence.too_long("a", 5)  # first look: whatever it says, the count begins here
    for _ in range(3):
        now += 20
        assert not silence.too_long("a", 5)
    assert not silence.too_long("b", 0)
    now += 1
    assert silence.too_long("a", 5)
    assert not silence.too_long("b", 0)
    assert not silence.too_long("a", 6)  # a heartbeat, though late
    for _ in range(3):
        now += 20
        assert not silence.too_long("a", 6)
        lost = silence.too_long("b", 0)
    assert lost
    now += 1
    assert silence.too_long("a", 6)


def test_a_silence_that_we_could_not_hear_is_not_held_against_others() -> None:
    """The storage was gone, for them as for us: they need a moment to come back, too."""
    now = 0.0
    silence = Silence(timeout=60, clock=lambda: now)
    assert not silence.too_long("a", 5)
    now += 1000
    assert not silence.too_long("a", 5)
    now += 29
    assert not silence.too_long("a", 5)
    now += 2
    assert silence.too_long("a", 5)


@pytest.mark.parametrize(
    "bad",
    [
        "sqlite:////proc/no/such/folder/optuna.db",
        "nonsense",
        "postgresql://no:s3cret@port:s3cret/db",
        "postgresql://127.0.0.1:1/db?password=s3cret",
        "oracle://nobody@nowhere/db",
        "postgresql://nobody@127.0.0.1:1/db",
    ],
)
def test_a_storage_that_does_not_open_is_the_users_mistake(bad: str) -> None:
    with pytest.raises(UserError, match=r"^hydra\.sweeper\.storage=.*allowed: sqlite:///PATH") as refused:
        open_storage(bad, timeout=60.0, key="hydra.sweeper.storage")
    assert "\n" not in str(refused.value)
    assert "s3cret@" not in str(refused.value)
    assert "password=s3cret" not in str(refused.value)


def test_a_driver_that_is_not_installed_is_named_and_the_password_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"^hydra\.sweeper\.storage=postgresql://me:\*\*\*@h/d: ") as refused:
        open_storage("postgresql://me:s3cret@h/d", timeout=60.0, key="hydra.sweeper.storage")
    assert "pip install 'psycopg[binary]'" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_file_that_is_no_database_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but notes of some length" * 100)
    with pytest.raises(UserError, match=r"^hydra\.sweeper\.storage="):
        open_storage(f"sqlite:///{tmp_path / 'notes.txt'}", timeout=60.0, key="hydra.sweeper.storage")
    assert (tmp_path / "notes.txt").read_text().startswith("not a database")
