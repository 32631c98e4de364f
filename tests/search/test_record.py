"""Searches read back: every trial with its own state, and a variant's answer once there is one."""

from dataclasses import replace

import optuna
import pytest
from search_helpers import attributes, cut_outcome, outcome

from redline.search.policy.points import Point
from redline.search.store.owner import Owner
from redline.search.store.record import link_trials, read_searches
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy
from result_helpers import made_variant

LADDER = (0.1, 0.2, 0.4)


@pytest.fixture
def study(url: str) -> VariantStudy:
    return VariantStudy(open_storage(url, timeout=60.0), "search/qk", attributes(LADDER), first_seed=7)


def test_every_trial_is_read_back_with_its_state(study: VariantStudy) -> None:
    stable, diverged, crashed, lost, running = (
        study.claim(Point(rung, seed), Owner.here())
        for rung, seed in [(0, 0), (2, 0), (0, 1), (1, 1), (1, 0)]
    )
    for claim in (stable, diverged, crashed, lost, running):
        assert claim is not None
    study.report(stable, 3, 5.5)
    study.finish(diverged, outcome(0.4, reason="blow_up", val_loss=None))
    study.finish(stable, replace(outcome(0.1, val_loss=4.0), page="http://curves/1"))
    study.fail(crashed._trial_id, "crash")
    study.fail(lost._trial_id, "lost")
    ((variant,),) = read_searches(study.storage).values()
    assert (variant.search, variant.name, variant.ladder, variant.key) == ("search", "qk", LADDER, "lr")
    assert (variant.label, variant.seeds, variant.facts) == ("LR", 1, study.facts)
    assert [trial.state for trial in variant.trials] == [
        "stable",
        "diverged",
        "crashed",
        "interrupted",
        "running",
    ]
    first, second = variant.trials[:2]
    assert (first.value, first.seed) == (0.1, 7)
    assert (first.last_step, first.last_loss) == (3, 5.5)
    assert first.outcome is not None
    assert (first.outcome.val_loss, first.outcome.page) == (4.0, "http://curves/1")
    assert second.reason == "blow_up"
    assert variant.asked == {"criterion": "useful", "lost_share": 0.25, "claim": None, "recipe": {}}


def test_a_cut_trial_is_read_back_as_one_also_when_its_point_was_run_again(study: VariantStudy) -> None:
    """It keeps its own state."""
    for ended in (cut_outcome(0.1), outcome(0.1, val_loss=None, reason="blow_up")):
        claim = study.claim(Point(0, 0), Owner.here())
        assert claim is not None
        study.finish(claim, ended)
    ((variant,),) = read_searches(study.storage).values()
    assert [(trial.state, trial.reason) for trial in variant.trials] == [
        ("cut", None),
        ("diverged", "blow_up"),
    ]
    assert variant.trials[0].outcome == cut_outcome(0.1)


def test_trials_that_ended_without_a_page_are_linked_and_others_left_alone(study: VariantStudy) -> None:
    claims = [study.claim(Point(rung, 0), Owner.here()) for rung in range(3)]
    for claim, page in zip(claims, (None, "http://own/1", None), strict=True):
        assert claim is not None
        study.finish(claim, replace(outcome(0.1), page=page))
    cut = study.claim(Point(0, 1), Owner.here())
    assert cut is not None
    study.finish(cut, cut_outcome(0.1))
    pages = {("qk", "0"): "http://late/0", ("qk", "1"): "http://late/1", ("qkv", "2"): "http://late/2"}
    pages["qk", "3"] = "http://late/3"
    link_trials(study.storage, "search", pages)
    attributes = study.storage.get_study_system_attrs(study.study._study_id)
    notes = [attributes[f"dashboard:{trial._trial_id}:note_str:0"] for trial in study.trials()]
    assert "(http://late/0)" in notes[0]
    assert "stable" in notes[0]
    assert "(http://own/1)" in notes[1]
    assert "http" not in notes[2]
    assert "(http://late/3)" in notes[3]
    assert "cut" in notes[3]


def test_a_result_is_read_once_its_search_has_ended(study: VariantStudy) -> None:
    claim = study.claim(Point(0, 0), Owner.here())
    assert claim is not None
    study.finish(claim, outcome(0.1, reason="blow_up", val_loss=None))
    result = made_variant()
    study.answer(result)
    assert read_searches(study.storage)["search"][0].result is None
    study.study.set_user_attr("finished", True)
    assert read_searches(study.storage)["search"][0].result == result


def test_what_was_asked_is_read_back_too(url: str) -> None:
    asked = {"recipe": {"weight_decay": 0.1}, "criterion": "both", "lost_share": 0.3, "claim": 1.5}
    study = VariantStudy(open_storage(url, timeout=60.0), "search/qk", attributes(LADDER, **asked))
    assert read_searches(study.storage)["search"][0].asked == asked


def test_short_runs_studies_of_others_and_those_begun_by_half_are_no_variants(study: VariantStudy) -> None:
    short = attributes(LADDER, variant="qk (short runs)", is_short=True)
    VariantStudy(study.storage, "search/qk (short runs)", short)
    optuna.create_study(storage=study.storage, study_name="somebody else's")
    half = optuna.create_study(storage=study.storage, study_name="search/half")
    for key in ("fingerprint", "ladder"):
        half.set_user_attr(key, attributes(LADDER)[key])
    assert [its.name for its in read_searches(study.storage)["search"]] == ["qk"]
