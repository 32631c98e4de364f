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
from search_helpers import open_gate_after, outcome, reopened, wait_for
from sqlalchemy.exc import OperationalError

from redline.errors import UserError
from redline.search.policy.points import Point
from redline.search.store.owner import Owner
from redline.search.store.patient_storage import PatientStorage
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


def edges(done: Coordinated, name: str = "qk") -> tuple[float | None, float | None]:
    """The user's own rung below the useful edge, and the smallest value that diverged."""
    its = done.results[name]
    return its.max_useful_rung, its.first_diverged_lr


def holds(interval: tuple[float, float] | None, edge: float) -> bool:
    """Whether an interval holds an edge, or misses it by little: it is one of 90%."""
    assert interval is not None
    return interval[0] / 1.25 < edge < interval[1] * 1.25


def test_finds_every_variants_edge_and_says_so(url: str, tmp_path: Path) -> None:
    done = coordinate(url, str(tmp_path), {"qk": {"edge": 0.8}, "qkv": {"edge": 9}}, ladder=LADDER)
    assert edges(done) == (0.4, 0.8)
    its = done.results["qk"]
    assert holds(its.max_useful_lr_90, 0.57)
    assert holds(its.max_stable_lr_90, 0.57)
    assert its.first_diverged_reason == "non_finite"
    assert its.stopped is not None
    assert (done.results["qkv"].censored, done.results["qkv"].stable_censored) == ("above", "above")
    assert states(url) == {"COMPLETE": its.trials}
    assert "qk lr=0.8: diverged by non_finite at step 9" in done.said
    assert "qk lr=0.4: stable, validation loss 4.000" in done.said
    assert (tmp_path / "trials" / "qk" / "lr=0.8-seed=7" / "trial.log").is_file()


def test_every_variant_has_its_ratio_to_the_reference(url: str, tmp_path: Path) -> None:
    variants = {"qk": {"edge": 0.4}, "qkv": {"edge": 1.6}}
    done = coordinate(url, str(tmp_path), variants, ladder=LADDER, claim=1.5)
    assert done.results["qk"].ratio is None
    its = done.results["qkv"].ratio
    assert its is not None
    assert its.to == "qk"
    assert its.useful is not None
    assert holds(its.useful_90, 4.0)
    assert its.useful_claim_chance is not None
    assert its.stable_chance is not None


@pytest.mark.parametrize(("edge", "beyond"), [(6.0, 6.4), (0.02, 0.0125)])
def test_the_ladder_grows_where_the_edge_lies_outside(
    url: str, tmp_path: Path, edge: float, beyond: float
) -> None:
    fake = {"qk": {"edge": edge}}
    done = coordinate(url, str(tmp_path), fake, ladder=LADDER, extend=True, seeds=2)
    tried = {trial.params["lr"] for trial in trials(url)}
    assert beyond in tried
    assert holds(done.results["qk"].max_useful_lr_90, edge)
    assert done.results["qk"].censored is None
    again = coordinate(url, str(tmp_path), fake, ladder=LADDER, extend=True, seeds=2)
    assert again.results == done.results


def test_every_seed_of_a_point_is_trained_with_its_own_seed(url: str, tmp_path: Path) -> None:
    done = coordinate(url, str(tmp_path), {"qk": {"edge": 0.2}}, ladder=LADDER[:3], seeds=3)
    assert edges(done) == (0.1, 0.2)
    outcomes = done.studies["qk"].state().outcomes
    assert all(its.seed == point.seed + 7 for point, its in outcomes.items())
    assert {point.seed for point in outcomes} >= {0, 1}


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
    assert (edges(done), done.results["qk"].open) == ((0.4, 0.8), ())
    assert states(url) == {"COMPLETE": done.results["qk"].trials, "crash": 3}
    assert "qk lr=0.4: crashed (killed by signal SIGKILL), tried again; its log is in" in done.said


def test_a_run_that_crashes_too_often_is_left_open_and_the_search_ends(url: str, tmp_path: Path) -> None:
    fake = {"edge": 0.8, "crashes": {"0.4": 99}}
    done = coordinate(url, str(tmp_path), {"qk": fake, "qkv": {"edge": 0.8}}, ladder=LADDER, retries=1)
    assert (done.results["qk"].first_diverged_lr, done.results["qk"].open) == (0.8, (0.4,))
    assert edges(done, "qkv") == (0.4, 0.8)
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
    with pytest.raises(UserError, match=r"^lr=0\.2: allowed: others$"):
        coordinate(
            url,
            str(tmp_path),
            {"qk": {"edge": 9, "refuse": 0.2}, "qkv": {"edge": 9, "seconds": 3600}},
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
    assert edges(done) == (0.4, 0.8)
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
    assert edges(done) == (0.4, 0.8)
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
    assert edges(done) == (0.1, 0.2)
    assert states(url) == {"COMPLETE": 2, "lost": 1}


def test_what_runs_of_a_variant_that_is_answered_is_cancelled(url: str, tmp_path: Path) -> None:
    """One without end; the others wait until it has been heard of."""
    gate = tmp_path / "gate"
    slow = {"edge": 0.6, "useful": 0.3, "seconds": {"3.2": 3600}, "gate": str(gate)}

    def heard_of() -> bool:
        return any(t.params["lr"] == 3.2 and "page" in t.user_attrs for t in trials(url))

    def begin_there(studies: dict[str, VariantStudy]) -> None:
        open_gate_after(gate, heard_of, "the one without end")

    done = coordinate(
        url,
        str(tmp_path),
        {"qk": slow},
        ladder=LADDER,
        seeds=2,
        workers=8,
        resolution=4.0,
        meanwhile=begin_there,
    )
    assert done.results["qk"].stopped == "resolution"
    assert 3.2 in [t.params["lr"] for t in trials(url) if t.user_attrs.get("failure") == "cancelled"]
    assert "cancelled, qk is answered" in done.said
    # It had taken its first step, which is part of the cost.
    assert done.results["qk"].optimizer_steps > 10 * done.results["qk"].trials


def test_short_runs_look_first_and_full_length_runs_decide(url: str, tmp_path: Path) -> None:
    variants = {"qk": {"edge": 0.8}, "qkv": {"edge": 0.4}}
    done = coordinate(url, str(tmp_path), variants, ladder=LADDER, short_run_steps=4)
    assert {name: edges(done, name) for name in variants} == {"qk": (0.4, 0.8), "qkv": (0.2, 0.4)}
    for name, its in done.results.items():
        steps = [Counter(study_steps(done, task)) for task in (name, f"{name} (short runs)")]
        assert steps == [Counter({10: its.trials}), Counter({4: its.short_runs})]
        cancelled = done.studies[name].cancelled_steps()
        cancelled += done.studies[f"{name} (short runs)"].cancelled_steps()
        assert its.optimizer_steps == 10 * its.trials + 4 * its.short_runs + cancelled
        ended = [
            [trial.datetime_complete for trial in trials(url, f"{name} (short runs)")],
            [trial.datetime_start for trial in trials(url, name)],
        ]
        assert max(filter(None, ended[0])) <= min(filter(None, ended[1])), "it waits for its short runs"


LEARNER = {"edge": 99.0, "useful": 0.3, "learns": True, "steps": 100, "step_seconds": 0.005}


@pytest.mark.parametrize("criterion", ["useful", "both"])
def test_a_lost_run_ends_early_and_the_answer_is_the_same(url: str, tmp_path: Path, criterion: str) -> None:
    """With both edges searched, where it is known that it will not diverge."""
    told: dict[str, Any] = {"ladder": LADDER, "workers": 1, "cut": 0.02, "criterion": criterion}
    if criterion == "both":
        told |= {"seeds": 2, "resolution": 2.5, "ladder": [*LADDER, 100.0]}
    done = coordinate(url, str(tmp_path), {"qk": LEARNER}, **told)
    its = done.results["qk"]
    assert its.cut > 0
    assert holds(its.max_useful_lr_90, 0.3)
    ended = done.studies["qk"].state().outcomes
    cut = {point: run for point, run in ended.items() if run.cut is not None}
    assert len(cut) == its.cut
    for run in cut.values():
        assert run.value > 0.3
        assert run.cut is not None
        assert 4.3 < run.cut.loss < 5.3
        assert run.optimizer_steps < 90
    assert its.optimizer_steps == sum(run.optimizer_steps for run in ended.values())
    assert ": cut at step " in done.said
    assert {"stable", "cut"} <= {trial.user_attrs["verdict"] for trial in trials(url)}


@pytest.mark.parametrize("changed", [{"cut": 0.0}, {"cut": 0.02, "criterion": "stable"}])
def test_nothing_is_cut_where_it_is_not_asked_for(url: str, tmp_path: Path, changed: dict[str, Any]) -> None:
    learner = {**LEARNER, "step_seconds": 0.0}
    done = coordinate(url, str(tmp_path), {"qk": learner}, ladder=LADDER[1:4], workers=1, **changed)
    assert done.results["qk"].cut == 0
    assert set(study_steps(done, "qk")) == {100}


def test_a_cut_point_that_is_asked_for_again_is_run_to_its_end_from_where_it_was(
    url: str, tmp_path: Path
) -> None:
    first = coordinate(url, str(tmp_path), {"qk": LEARNER}, ladder=LADDER, workers=1, cut=0.02)
    cut = {point for point, run in first.studies["qk"].state().outcomes.items() if run.cut is not None}
    assert cut
    # Another question of the same study, whose edge lies where runs were cut.
    other = {"lost_share": 0.75, "resolution": 1.01, "settled": 1.0}
    again = coordinate(url, str(tmp_path), {"qk": LEARNER}, ladder=LADDER, workers=1, cut=0.02, **other)
    outcomes = again.studies["qk"].state().outcomes
    resumed = [point for point in cut if outcomes[point].cut is None]
    assert resumed
    for point in resumed:
        assert outcomes[point].optimizer_steps == 100
        place = tmp_path / "trials" / "qk" / f"lr={outcomes[point].value:g}-seed=7"
        assert 0 < int((place / "checkpoint").read_text()) < 100
        assert len(list(place.glob("try-*"))) == 2


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
    assert edges(done) == (0.1, 0.2)
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
    found = {name: (its.max_useful_rung, its.first_diverged_lr) for name, its in results[0].items()}
    assert found == {"baseline": (0.1, 0.2), "qk": (0.8, 1.6)}
    workers: set[int] = set()
    for name in ("baseline", "qk"):
        finished = [trial for trial in trials(url, name) if trial.state == TrialState.COMPLETE]
        points = [(trial.params["lr"], trial.params["seed"]) for trial in finished]
        assert len(points) == len(set(points)) == results[0][name].trials
        assert set(states(url, name)) <= {"COMPLETE", "duplicate"}
        workers |= {trial.user_attrs["owner"]["pid"] for trial in finished}
    assert len(workers) == 2, "one did all the work"
