"""What follows from a variant's outcomes: the numbers of its result."""

import math
from collections.abc import Collection
from dataclasses import asdict

import pytest
from search_helpers import DEGRADED, outcome

from redline.search.policy.answer import variant_result
from redline.search.policy.state import Question, search_state
from redline.search.policy.points import Point
from redline.search.result import VariantResult
from redline.search.trainable import Facts
from redline.stability import Outcome

LADDER = (0.1, 0.2, 0.4, 0.8)
FIXED_KEYS = {
    "max_useful_lr",
    "max_useful_lr_90",
    "max_useful_rung",
    "max_stable_lr",
    "max_stable_lr_90",
    "max_stable_rung",
    "first_diverged_lr",
    "censored",
    "first_diverged_reason",
    "ratio",
    "val_loss",
    "val_losses",
    "val_perplexity",
    "best_lr",
    "best_val_loss",
    "trials",
    "optimizer_steps",
    "grid_steps",
}


def runs(ends: str, first_loss: float = 4.0) -> dict[Point, Outcome]:
    """One seed's runs, a letter a rung: (s)table, (d)iverged, (-) not run. Losses fall by 0.1 a rung."""
    return {
        Point(rung, 0): outcome(LADDER[rung], reason="blow_up", val_loss=None, steps=5)
        if end == "d"
        else outcome(LADDER[rung], val_loss=first_loss - 0.1 * rung)
        for rung, end in enumerate(ends)
        if end != "-"
    }


def result(outcomes: dict[Point, Outcome], seeds: int = 1, given_up: Collection[Point] = ()) -> VariantResult:
    question = Question(LADDER, seeds, "majority", doubt=1.0)
    return variant_result(search_state(question, DEGRADED, outcomes, given_up=given_up), Facts(max_steps=10))


def test_an_edge_gives_every_fixed_key() -> None:
    its = result(runs("s-sd"))
    assert set(asdict(its)) >= FIXED_KEYS
    assert (its.max_useful_lr, its.first_diverged_lr, its.censored) == (0.4, 0.8, None)
    assert (its.first_diverged_reason, its.first_diverged_step) == ("blow_up", 4)
    assert its.val_loss == pytest.approx(3.8)
    assert its.val_perplexity == pytest.approx(math.exp(3.8))
    assert (its.best_lr, its.best_val_loss) == (0.4, pytest.approx(3.8))
    assert (its.trials, its.optimizer_steps, its.grid_steps) == (3, 25, 40)


def test_perplexity_is_of_the_mean_loss_over_seeds() -> None:
    both = {Point(0, seed): outcome(seed=seed, val_loss=3.0 + seed) for seed in (0, 1)}
    both |= {Point(1, seed): outcome(seed=seed, reason="blow_up", val_loss=None) for seed in (0, 1)}
    its = result(both, seeds=2)
    assert its.val_loss == pytest.approx(3.5)
    assert its.val_losses == {"0": 3.0, "1": 4.0}
    assert its.val_perplexity == pytest.approx(math.exp(3.5))
    assert its.grid_steps == 80


def test_a_late_rule_five_verdict_is_the_edge_and_names_its_reason() -> None:
    outcomes = {
        Point(rung, 0): outcome(LADDER[rung], val_loss=loss) for rung, loss in enumerate([4.0, 4.0, 4.3, 4.4])
    }
    its = result(outcomes)
    assert (its.max_useful_lr, its.first_diverged_lr) == (0.2, 0.4)
    assert (its.first_diverged_reason, its.first_diverged_step) == ("degraded", 9)


def test_the_step_of_a_divergence_is_the_earliest_of_the_seeds_that_broke_the_rule() -> None:
    steps = {"blow_up": [8, 6], "non_finite": [2]}
    runs = [(reason, count) for reason, counts in steps.items() for count in counts]
    both = {Point(0, seed): outcome(seed=seed) for seed in range(3)}
    both |= {
        Point(1, seed): outcome(seed=seed, reason=reason, val_loss=None, steps=count)
        for seed, (reason, count) in enumerate(runs)
    }
    its = result(both, seeds=3)
    assert (its.first_diverged_reason, its.first_diverged_step) == ("blow_up", 5)


def test_the_best_loss_may_lie_at_another_rate_and_is_finite() -> None:
    outcomes = {Point(0, 0): outcome(val_loss=4.0), Point(1, 0): outcome(val_loss=4.2)}
    outcomes[Point(2, 0)] = outcome(val_loss=math.nan, reason="no_learning")
    outcomes[Point(3, 0)] = outcome(val_loss=math.inf, reason="no_learning")
    its = result(outcomes)
    assert (its.max_useful_lr, its.best_lr, its.best_val_loss) == (0.2, 0.1, 4.0)


@pytest.mark.parametrize(("ends", "censored"), [("ssss", "above"), ("s--s", "above"), ("d---", "below")])
def test_a_censored_edge_is_no_number(ends: str, censored: str) -> None:
    its = result(runs(ends))
    assert its.max_useful_lr is None
    assert its.censored == censored
    assert (its.first_diverged_lr is None) == (censored == "above")
    assert (its.val_loss, its.val_perplexity) == (None, None)


def test_an_undecided_rung_leaves_the_edge_open_and_named() -> None:
    its = result(runs("s-dd"), given_up={Point(1, 0)})
    assert (its.max_useful_lr, its.first_diverged_lr, its.open) == (None, 0.4, (0.2,))


def test_a_rung_left_open_outside_the_bracket_changes_nothing() -> None:
    its = result(runs("ssd-"), given_up={Point(3, 0)})
    assert (its.max_useful_lr, its.open) == (0.2, ())


@pytest.mark.parametrize(("ends", "left"), [("sss-", {3}), ("s---", {1, 2, 3}), ("----", {0, 1, 2, 3})])
def test_a_rung_that_only_crashed_is_never_claimed_as_stable(ends: str, left: set[int]) -> None:
    """A top rung that crashed is no evidence that the edge lies above it."""
    its = result(runs(ends), given_up={Point(rung, 0) for rung in left})
    assert its.max_useful_lr is None
    assert its.open == tuple(LADDER[rung] for rung in sorted(left))
    assert its.censored != "above"


def test_a_divergence_above_a_lowest_rung_that_only_crashed_is_not_censored() -> None:
    its = result(runs("-ddd"), given_up={Point(0, 0)})
    assert (its.max_useful_lr, its.first_diverged_lr, its.open) == (None, 0.2, (0.1,))
