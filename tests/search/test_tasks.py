"""A trial in its process: what it reports, how it is asked to end, and what follows from its score."""

import math
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_trainable import RULES, Fake
from optuna.study import StudyDirection
from search_helpers import attributes, reopened

from redline.errors import UserError
from redline.search import Facts, Score, Trainable, Trial
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy
from redline.search.workers.tasks import check, prepare, run_trial
from redline.stability import Outcome, Progress


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@dataclass
class Says(Trainable):
    """A trial that reports these losses until it is to stop, and ends with a score."""

    losses: list[Any]
    score: Score
    asked_to_stop_after: int | None = None
    stopped: list[bool] = field(default_factory=list)
    max_steps = 5

    def settings(self) -> Mapping[str, Any]:
        return {"losses": self.losses}

    def run(self, trial: Trial) -> Score:
        for step, loss in enumerate(self.losses):
            if step == self.asked_to_stop_after:
                os.kill(os.getpid(), signal.SIGTERM)
            self.stopped.append(trial.report(step, loss))
        return self.score


def ran(trainable: Trainable, place: Path, rules: Mapping[str, Any] = RULES) -> tuple[Outcome, list[Any]]:
    """Its outcome, and the messages on the way."""
    sent: list[Any] = []
    trial = Trial(0.1, 7, place / "trial", Facts(max_steps=5))
    return run_trial(trainable, trial, rules, sent.append), sent


def test_an_outcome_is_what_was_reported_and_the_score(tmp_path: Path) -> None:
    says = Says([6.0, 5.0, 4.0], Score(3.5, numbers={"perplexity": 33.0}))
    outcome, sent = ran(says, tmp_path)
    assert (outcome.value, outcome.seed, outcome.reason) == (0.1, 7, None)
    assert (outcome.step, outcome.optimizer_steps) == (2, 3)
    assert (outcome.initial_loss, outcome.train_loss, outcome.val_loss) == (6.0, 4.0, 3.5)
    assert outcome.numbers == {"perplexity": 33.0}
    assert sent[0] == Progress(1, 6.0, windows=(6.0,))  # five steps: a window for each
    assert says.stopped == [False, False, False]


def test_a_broken_rule_stops_the_trial_and_is_its_reason(tmp_path: Path) -> None:
    says = Says([6.0, math.nan, 4.0], Score(None))
    outcome, _ = ran(says, tmp_path)
    assert (outcome.reason, outcome.step) == ("non_finite", 1)
    assert says.stopped == [False, True, True]


def test_a_trial_that_is_asked_to_end_is_told_so_by_its_next_report(tmp_path: Path) -> None:
    says = Says([6.0, 5.0, 4.0], Score(None), asked_to_stop_after=1)
    # Whoever asked: the search listens no more, and to another one it must be no outcome.
    with pytest.raises(RuntimeError, match="ended by SIGTERM"):
        ran(says, tmp_path)
    assert says.stopped == [False, True, True]


def test_a_trial_that_reports_nothing_has_its_whole_length(tmp_path: Path) -> None:
    outcome, sent = ran(Says([], Score(3.5)), tmp_path)
    assert (outcome.reason, outcome.optimizer_steps, sent) == (None, 5, [])


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_no_result(tmp_path: Path, score: float) -> None:
    outcome, _ = ran(Says([6.0], Score(score)), tmp_path, rules={})
    assert outcome.reason == "non_finite"


def test_numbers_of_numpy_can_be_stored(tmp_path: Path, url: str) -> None:
    """What a mean of an array gives is no float of Python's."""
    score = Score(
        np.float32(3.5), floor=np.float32(9.0), numbers={"perplexity": np.float32(33.0)}, steps=np.int64(2)
    )
    outcome, (first, *_) = ran(Says([np.float32(6.0), np.float32(5.0)], score), tmp_path)
    storage = open_storage(url, timeout=60.0)
    trial = storage.create_new_trial(storage.create_new_study([StudyDirection.MAXIMIZE]))
    storage.set_trial_user_attr(trial, "outcome", asdict(outcome))
    storage.set_trial_intermediate_value(trial, first.step, first.loss)
    found = storage.get_trial(trial)
    assert Outcome.from_dict(found.user_attrs["outcome"]) == outcome
    assert found.intermediate_values == {1: 6.0}


def test_every_variant_is_checked_before_any_is_prepared(tmp_path: Path) -> None:
    trainables = {"a": Fake(0.1, place=str(tmp_path)), "b": Fake(0.2, wrong="b is wrong")}
    with pytest.raises(UserError, match="b is wrong"):
        check(trainables, lambda message: None)
    assert not list(tmp_path.glob("facts-*"))
    sent: list[Any] = []
    assert prepare({"a": trainables["a"]}, sent.append) == {"a": trainables["a"].facts()}
    assert sent == ["preparing a"]


@dataclass
class Cooks(Says):
    """A trainable with a recipe."""

    recipe: Mapping[str, Any] = field(default_factory=dict)

    def facts(self) -> Facts:
        return Facts(5, recipe=self.recipe)


def test_a_recipe_is_what_json_can_hold(url: str) -> None:
    its = Cooks([], Score(None), recipe={"betas": (0.9, 0.95), "clip": None, "batch": {"tokens": 1024}})
    facts = prepare({"a": its}, lambda message: None)["a"]
    assert facts.recipe == {"betas": [0.9, 0.95], "clip": None, "batch": {"tokens": 1024}}
    study = VariantStudy(
        open_storage(url, timeout=60.0), "search/a", attributes([0.1, 0.2], facts=asdict(facts))
    )
    assert reopened(study, url).facts == facts
    with pytest.raises(UserError, match=r"recipe of a: .*allowed: what JSON can hold"):
        prepare({"a": Cooks([], Score(None), recipe={"clip": object()})}, lambda message: None)


def test_short_runs_have_the_same_facts_but_for_their_length() -> None:
    full = Facts(250, parameters=7, recipe={"max_steps": 250, "clip": 1.0}, coupled_decay=0.1)
    short = Facts(50, parameters=7, recipe={"max_steps": 50, "clip": 1.0}, coupled_decay=0.1)
    assert full.of_length(50) == short


@pytest.mark.parametrize(
    ("coupled", "independent", "expected"),
    [(0.1, 0.0, 0.05), (0.0, 1e-4, 1e-4), (0.1, 1e-4, 0.0501), (0.0, 0.0, None)],
)
def test_what_decay_takes_off_at_a_step(coupled: float, independent: float, expected: float | None) -> None:
    facts = Facts(coupled_decay=coupled, independent_decay=independent)
    assert facts.decay_per_step(0.5) == (None if expected is None else pytest.approx(expected))
