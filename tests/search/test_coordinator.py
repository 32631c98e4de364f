"""The coordinator with a real storage and real processes, but trials that answer at once."""

import os
import signal
import threading
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import pytest
from coordinate import Coordinated, Coordinators, coordinate
from optuna.trial import TrialState
from redline.search.policy.verdicts import Point, reasons
from search_helpers import DEGRADED, open_gate_after, outcome, reopened, wait_for
from sqlalchemy.exc import OperationalError

from redline.errors import UserError
from redline.search.store.owner import Owner
from redline.search.store.patient_storage import PatientStorage
from redline.search.store.record import judged
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy
from redline.search.workers.pool import Pool, Slot

LADDER = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
pytestmark = pytest.mark.usefixtures("own_environment")


def trials(url: str, variant: str = "qk") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=f"search/{variant}", storage=open_storage(url, timeout=60.0)).trials


def states(url: str, variant: str = "qk") -> Counter[str]:
    """How many trials ended how: a state, or a failure; but for speculative ones that were not needed."""
    ended = [trial.user_attrs.get("failure", trial.state.name) for trial in trials(url, variant)]
    return Counter(how for how in ended if how != "cancelled")


def judged_as_all_outcomes_say(study: VariantStudy) -> bool:
    """What is read of every trial is what all the outcomes together say."""
    expected = reasons(study.state().outcomes, DEGRADED)
    its = judged(study.study.user_attrs, study.trials())
    finished = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    return its == {trial.number: expected[study.point_of(trial)] for trial in finished}


def test_finds_every_variants_edge_and_says_so(url: str, tmp_path: Path) -> None:
    done = coordinate(url, str(tmp_path), {"qk": {"edge": 0.8}, "qkv": {"edge": 9}}, ladder=LADDER)
    assert done.results["qk"].max_stable_lr == 0.4
    assert done.results["qk"].first_diverged_reason == "non_finite"
    assert done.results["qkv"].censored == "above"
    assert states(url) == {"COMPLETE": done.results["qk"].trials}
    assert "qk lr=0.8: diverged by non_finite at step 9" in done.said
    assert "qk lr=0.4: stable, validation loss 4.000" in done.said
    assert (tmp_path / "trials" / "qk" / "lr=0.8-seed=7" / "trial.log").is_file()


def test_every_seed_of_a_point_is_trained_with_its_own_seed(url: str, tmp_path: Path) -> None:
    done = coordinate(url, str(tmp_path), {"qk": {"edge": 0.2}}, ladder=LADDER[:3], seeds=3)
    assert done.results["qk"].max_stable_lr == 0.1
    outcomes = done.studies["qk"].state().outcomes
    assert all(its.seed == point.seed + 7 for point, its in outcomes.items())
    assert {point.seed for point in outcomes} >= {0, 1}


def test_a_verdict_that_a_later_run_turns_reaches_the_result_and_its_readers(
    url: str, tmp_path: Path
) -> None:
    """A speculative run at a smaller rate shows that a rate which ended stable was degraded."""
    losses = {"0.1": 5.0, "0.2": 4.0, "0.4": 3.0, "0.8": 4.9, "1.6": 5.0}
    done = coordinate(url, str(tmp_path), {"qk": {"edge": 3.2, "losses": losses}}, ladder=LADDER, workers=4)
    assert done.results["qk"].max_stable_lr == 0.4
    assert done.results["qk"].first_diverged_reason == "degraded"
    assert judged_as_all_outcomes_say(done.studies["qk"])


def test_a_trial_links_to_its_page_and_knows_its_facts(url: str, tmp_path: Path) -> None:
    done = coordinate(url, str(tmp_path), {"qk": {"edge": 0.8}}, ladder=LADDER)
    pages = {trial.params["lr"]: trial.user_attrs.get("page") for trial in trials(url)}
    assert pages[0.4] == "http://curves/0.4-7-0"
    assert {path.name for path in tmp_path.glob("trials/*/*/precision-*")} == {"precision-fp32"}
    its = done.results["qk"]
    assert (its.precision, its.max_steps, its.parameters, its.tokens_per_step) == ("fp32", 10, 7, 3)


def test_the_windows_of_a_run_are_stored_once_each(url: str, tmp_path: Path) -> None:
    stored: Counter[tuple[int, int]] = Counter()

    def count(studies: dict[str, VariantStudy]) -> None:
        report = studies["qk"].report

        def noted(claim: optuna.trial.FrozenTrial, step: int, loss: float) -> None:
            stored[claim.number, step] += 1
            report(claim, step, loss)

        studies["qk"].report = noted  # type: ignore[method-assign]

    fake = {"edge": 9, "steps": 100, "every_step": True}
    done = coordinate(url, str(tmp_path), {"qk": fake}, ladder=LADDER[:2], meanwhile=count)
    assert set(stored.values()) == {1}
    curve, other = done.studies["qk"].state().curves.values()
    assert curve == other
    assert curve[:-1] == tuple(5 - (2 * window + 0.5) / 8 for window in range(49))


def test_where_the_length_is_not_known_a_loss_is_stored_now_and_then(url: str, tmp_path: Path) -> None:
    fake = {"edge": 9, "known_length": False, "every_step": True}
    done = coordinate(url, str(tmp_path), {"qk": fake}, ladder=LADDER[:2])
    assert [trial.intermediate_values for trial in trials(url)] == [{1: 5.0}] * len(trials(url))
    assert done.studies["qk"].state().curves == {}


def test_a_later_coordinator_goes_by_the_first_ones_facts(url: str, tmp_path: Path) -> None:
    """The machines of a search may differ in the precision that is best on each."""
    first, second = ({"qk": {"edge": 0.8, "precision": its, "refuse": 0.1}} for its in ("bf16", "fp32"))
    with pytest.raises(UserError):
        coordinate(url, str(tmp_path / "a"), first, ladder=LADDER)
    second["qk"].pop("refuse")
    done = coordinate(url, str(tmp_path / "b"), second, ladder=LADDER)
    assert done.results["qk"].precision == "bf16"
    assert {path.name for path in tmp_path.glob("b/trials/*/*/precision-*")} == {"precision-bf16"}


def test_a_crash_is_tried_again_and_is_no_divergence(url: str, tmp_path: Path) -> None:
    fake = {"edge": 0.8, "crashes": {"0.1": 2, "0.4": 1}}
    done = coordinate(url, str(tmp_path), {"qk": fake}, ladder=LADDER)
    assert (done.results["qk"].max_stable_lr, done.results["qk"].open) == (0.4, ())
    assert states(url) == {"COMPLETE": done.results["qk"].trials, "crash": 3}
    assert "qk lr=0.4: crashed (killed by signal SIGKILL), tried again; its log is in" in done.said


def test_a_run_that_crashes_too_often_is_left_open_and_the_search_ends(url: str, tmp_path: Path) -> None:
    fake = {"edge": 0.8, "crashes": {"0.4": 99}}
    done = coordinate(url, str(tmp_path), {"qk": fake, "qkv": {"edge": 0.8}}, ladder=LADDER, retries=1)
    assert (done.results["qk"].max_stable_lr, done.results["qk"].open) == (None, (0.4,))
    assert done.results["qkv"].max_stable_lr == 0.4
    assert states(url)["crash"] == 2
    assert "given up" in done.said


def test_ctrl_c_waits_once_for_all_trials_that_do_not_end(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["qk", "qkv", "qk_cap", "baseline"]
    stop, waits = Pool.stop, []

    def noted_stop(pool: Pool, slot: Slot, grace_period: float) -> None:
        waits.append(grace_period)
        stop(pool, slot, grace_period)

    def interrupt() -> None:
        try:
            wait_for(lambda: len(list(tmp_path.glob("trials/*/*/try-0-*"))) == len(names), "four trials")
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Pool, "stop", noted_stop)
    with pytest.raises(KeyboardInterrupt):
        coordinate(
            url,
            str(tmp_path),
            {name: {"edge": 0.8, "seconds": 3600, "deaf": True} for name in names},
            ladder=LADDER,
            workers=len(names),
            meanwhile=lambda studies: threading.Thread(target=interrupt).start(),
        )
    assert len(waits) == len(names)
    assert sum(waits) < 3  # seconds: two for all, and not for each
    assert [states(url, name) for name in names] == [{"interrupted": 1}] * len(names)


def test_a_mistake_of_the_users_ends_the_search_and_leaves_no_trial_running(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^lr=0\.1: allowed: others$"):
        coordinate(
            url,
            str(tmp_path),
            {"qk": {"edge": 9, "refuse": 0.1}, "qkv": {"edge": 9, "seconds": 3600}},
            ladder=LADDER,
        )
    assert states(url) == {"interrupted": 1}
    assert states(url, "qkv") == {"interrupted": 1}


def test_goes_on_with_what_the_storage_holds(url: str, tmp_path: Path) -> None:
    fake = {"qk": {"edge": 0.8}}
    first = coordinate(url, str(tmp_path / "a"), fake, ladder=LADDER)
    again = coordinate(url, str(tmp_path / "b"), fake, ladder=LADDER)
    assert again.results == first.results
    assert not (tmp_path / "b" / "trials").exists(), "nothing was trained again"


def test_a_dead_coordinators_trial_is_run_again_at_once(url: str, tmp_path: Path) -> None:
    def die_there(studies: dict[str, VariantStudy]) -> None:
        gone = Owner(Owner.here().host, os.getpid(), "another start", "claim")
        assert studies["qk"].claim(Point(0, 0), gone) is not None

    done = coordinate(
        url, str(tmp_path), {"qk": {"edge": 0.8}}, ladder=LADDER, workers=1, meanwhile=die_there
    )
    assert done.results["qk"].max_stable_lr == 0.4
    assert states(url) == {"COMPLETE": done.results["qk"].trials, "lost": 1}


def test_a_trial_whose_coordinator_died_before_it_had_told_all_of_its_outcome_is_run_again(
    url: str, tmp_path: Path
) -> None:
    def die_there(studies: dict[str, VariantStudy]) -> None:
        gone = Owner(Owner.here().host, os.getpid(), "another start", "claim")
        claim = studies["qk"].claim(Point(0, 0), gone)
        assert claim is not None
        half_told = outcome(0.1, reason="blow_up", val_loss=None)
        studies["qk"].storage.set_trial_user_attr(claim._trial_id, "outcome", asdict(half_told))
        studies["qk"].storage.set_trial_user_attr(claim._trial_id, "verdict", "diverged")

    done = coordinate(url, str(tmp_path), {"qk": {"edge": 0.8}}, ladder=LADDER, meanwhile=die_there)
    assert done.results["qk"].max_stable_lr == 0.4
    assert done.studies["qk"].state().outcomes[Point(0, 0)].val_loss == 4.0
    assert states(url) == {"COMPLETE": done.results["qk"].trials, "lost": 1}


def test_a_trial_that_was_taken_away_while_it_ran_does_not_end_the_search(url: str, tmp_path: Path) -> None:
    """Another machine thought us dead; our own trial's next sign of life must not be the end of us."""
    gate = tmp_path / "gate"

    def take_away(studies: dict[str, VariantStudy]) -> None:
        other = reopened(studies["qk"], url)
        note, taken, given_since = studies["qk"].note, [], []

        def give_and_tell(*args: Any) -> None:
            before = list(taken)
            note(*args)
            given_since.extend(before)

        def look() -> bool:
            if not taken:
                for trial in other.state().running.values():
                    other.fail(trial._trial_id, "lost")
                    taken.append(trial.number)
            return bool(given_since)

        studies["qk"].note = give_and_tell  # type: ignore[method-assign]
        open_gate_after(gate, look, "a heartbeat of a trial that was taken away")

    done = coordinate(
        url,
        str(tmp_path),
        {"qk": {"edge": 0.2, "gate": str(gate)}},
        ladder=LADDER[:2],
        workers=1,
        heartbeat_every=0.1,
        meanwhile=take_away,
    )
    assert done.results["qk"].max_stable_lr == 0.1
    assert states(url) == {"COMPLETE": 2, "lost": 1}


def test_a_run_that_can_no_longer_change_the_verdict_is_cancelled(url: str, tmp_path: Path) -> None:
    """A spare one of the first two, without end; the others wait until it has been heard of."""
    gate = tmp_path / "gate"
    slow = {"edge": 0.2, "seconds": {"0.8": 3600}, "gate": str(gate)}

    def heard_of() -> bool:
        return any(t.params["lr"] == 0.8 and "page" in t.user_attrs for t in trials(url))

    done = coordinate(
        url,
        str(tmp_path),
        {"qk": slow},
        ladder=LADDER,
        meanwhile=lambda studies: open_gate_after(gate, heard_of, "the one without end"),
    )
    assert (done.results["qk"].max_stable_lr, done.results["qk"].first_diverged_lr) == (0.1, 0.2)
    assert 0.8 in [t.params["lr"] for t in trials(url) if t.user_attrs.get("failure") == "cancelled"]
    assert "qk lr=0.8: cancelled" in done.said
    # It had taken its first step, which is part of the cost.
    assert done.results["qk"].optimizer_steps > 10 * done.results["qk"].trials


def test_short_runs_look_first_and_full_length_runs_decide(url: str, tmp_path: Path) -> None:
    variants = {"qk": {"edge": 0.8}, "qkv": {"edge": 0.4}}
    done = coordinate(url, str(tmp_path), variants, ladder=LADDER, short_run_steps=4, workers=1)
    assert {name: its.max_stable_lr for name, its in done.results.items()} == {"qk": 0.4, "qkv": 0.2}
    for name, its in done.results.items():
        steps = [Counter(study_steps(done, task)) for task in (name, f"{name} (short runs)")]
        assert steps == [Counter({10: its.trials}), Counter({4: its.short_runs})]
        assert its.optimizer_steps == 10 * its.trials + 4 * its.short_runs
        # The lowest rung and the two ends of the short runs' bracket.
        assert its.trials == 3


def study_steps(done: Coordinated, name: str) -> list[int]:
    return [outcome.optimizer_steps for outcome in done.studies[name].state().outcomes.values()]


def test_trials_train_on_while_the_storage_does_not_answer(url: str, tmp_path: Path) -> None:
    """What they report must not be what they wait for; here it is far more than a pipe holds."""

    def go_away(studies: dict[str, VariantStudy]) -> None:
        storage = studies["qk"].storage
        assert isinstance(storage, PatientStorage)
        behind = storage._storage
        ask = behind.get_all_trials

        def gone_until_reported(*args: Any, **kwargs: Any) -> Any:
            for log in tmp_path.rglob("trial.log"):
                (log.parent / "now").touch()
                if not (log.parent / "reported").exists():
                    raise OperationalError("SELECT 1", {}, Exception("no route to host"))
            return ask(*args, **kwargs)

        behind.get_all_trials = gone_until_reported  # type: ignore[method-assign]

    done = coordinate(
        url,
        str(tmp_path),
        {"qk": {"edge": 0.2, "reports": 5000}},
        ladder=LADDER[:2],
        workers=1,
        meanwhile=go_away,
    )
    assert done.results["qk"].max_stable_lr == 0.1
    assert states(url) == {"COMPLETE": 2}
    assert "the storage does not answer (no route to host)" in done.said


def test_two_coordinators_share_the_work_and_find_the_same(
    url: str, tmp_path: Path, coordinators: Coordinators
) -> None:
    gate, names = tmp_path / "gate", ("baseline", "qk")

    def both_work() -> bool:
        if len(optuna.get_all_study_names(open_storage(url, timeout=60.0))) < len(names):
            return False
        owners: dict[Any, Any] = {}  # of the first that runs a point: a later one is a rival that gives way
        for name in names:
            for its in trials(url, name):
                if its.state == TrialState.RUNNING:
                    owners.setdefault((name, *its.params.values()), its.user_attrs.get("owner"))
        return len({owner["pid"] for owner in owners.values() if owner}) == 2

    opening = open_gate_after(gate, both_work, "trials of both")
    for _ in range(2):
        fake = {"seconds": 0.2, "gate": str(gate)}
        coordinators.start(
            url=url,
            directory=str(tmp_path),
            variants={"baseline": {"edge": 0.2, **fake}, "qk": {"edge": 1.6, **fake}},
            ladder=LADDER,
            seeds=2,
            workers=2,
        )
    coordinators.go()
    results = coordinators.results()
    opening.join()
    assert results[0] == results[1]
    assert {name: its.max_stable_lr for name, its in results[0].items()} == {"baseline": 0.1, "qk": 0.8}
    workers: set[int] = set()
    for name in ("baseline", "qk"):
        finished = [trial for trial in trials(url, name) if trial.state == TrialState.COMPLETE]
        points = [(trial.params["lr"], trial.params["seed"]) for trial in finished]
        assert len(points) == len(set(points)) == results[0][name].trials
        assert set(states(url, name)) <= {"COMPLETE", "duplicate"}
        workers |= {trial.user_attrs["owner"]["pid"] for trial in finished}
    assert len(workers) == 2, "one did all the work"
