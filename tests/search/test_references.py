"""Which smaller rates are run because `degraded` might then judge otherwise."""

import math

import pytest
from search_helpers import DEGRADED, outcome

from redline.search.policy.loss_model import expected_losses
from redline.search.policy.references import references
from redline.search.policy.state import Question, search_state
from redline.search.policy.verdicts import Point, mean_losses
from redline.stability import Outcome

LADDER = tuple(0.01 * 1.6**rung for rung in range(10))


def runs(losses: dict[int, float | None], seed: int = 0) -> dict[Point, Outcome]:
    return {
        Point(rung, seed): outcome(LADDER[rung], seed=seed, val_loss=loss, reason=None if loss else "blow_up")
        for rung, loss in losses.items()
    }


def doubted(
    outcomes: dict[Point, Outcome], doubt: float = 0.1, seeds: int = 1, **options: object
) -> list[Point]:
    return references(outcomes, DEGRADED, ladder=LADDER, seeds=seeds, vote="majority", doubt=doubt, **options)


def test_an_edge_far_above_an_untried_stretch_is_doubted_in_its_middle() -> None:
    """Between rungs 0 and 7 the curve may dip: 4.2 would make 4.46 degraded."""
    outcomes = runs({0: 4.4, 7: 4.46, 8: None})
    asked = doubted(outcomes)
    assert asked
    assert all(0 < point.rung < 7 for point in asked)
    assert abs(asked[0].rung - 3.5) <= 2


def test_an_edge_that_no_likely_loss_can_turn_is_left_alone() -> None:
    assert doubted(runs({0: 4.4, 3: 4.3, 6: 4.28, 7: 4.28, 8: None})) == []


def test_the_more_doubt_is_worth_a_run_the_more_runs_there_are() -> None:
    outcomes = runs({0: 4.4, 4: 4.33, 7: 4.46, 8: None})
    asked = [len(doubted(outcomes, doubt)) for doubt in (1.0, 0.5, 0.2, 0.05, 0.001)]
    assert asked[0] == 0
    assert asked == sorted(asked)
    assert asked[-1] > 0


def test_a_seed_whose_vote_cannot_turn_the_rung_runs_nothing_more() -> None:
    """Seeds 0 and 1 are sure; seed 2 is in doubt and would be outvoted."""
    sure = {rung: 4.3 for rung in range(8)} | {8: None}
    doubtful = {0: 4.3, 7: 4.549, 8: None}
    outcomes = runs(sure) | runs(sure, seed=1) | runs(doubtful, seed=2)
    assert doubted(outcomes, seeds=3) == []
    outcomes = runs(sure) | runs(doubtful, seed=1)
    assert {point.seed for point in doubted(outcomes, seeds=3)} == {1}


def test_what_the_first_seed_leaves_in_doubt_is_run_before_another_begins() -> None:
    outcomes = runs({0: 4.4, 7: 4.46, 8: None})
    asked = {
        doubt: search_state(Question(LADDER, 3, "majority", doubt), DEGRADED, outcomes).plan.needed
        for doubt in (0.1, 1.0)
    }
    assert asked[0.1] == doubted(outcomes)[0]
    assert asked[1.0] == Point(0, 1)


def test_what_crashed_too_often_is_not_asked_for_again() -> None:
    outcomes = runs({0: 4.4, 7: 4.46, 8: None})
    first = doubted(outcomes)[0]
    assert first not in doubted(outcomes, given_up={first})


def test_a_further_seed_begins_where_the_loss_was_best() -> None:
    outcomes = runs({0: 4.4, 3: 4.1, 6: 4.2, 8: None}) | runs({0: 4.4, 6: 4.05, 7: math.nan}, seed=1)
    assert list(mean_losses(outcomes)) == [3, 6, 0]


def test_the_model_of_losses_passes_through_what_was_seen_and_doubts_what_was_not() -> None:
    seen = {Point(0, 0): 4.5, Point(1, 0): 4.4, Point(2, 0): 4.3}
    near, between, far = expected_losses(seen, [Point(2, 0), Point(1, 1), Point(9, 0)], LADDER)
    assert near.mean == pytest.approx(4.3, abs=0.05)
    assert between.mean == pytest.approx(4.4, abs=0.05)
    assert near.stdev < between.stdev < far.stdev


def test_the_model_of_losses_agrees_with_the_textbook_for_one_run() -> None:
    """Rasmussen & Williams (2.26) and (5.8), written out for a single run and three levels of noise."""
    (same,) = expected_losses({Point(4, 0): 4.0}, [Point(4, 0)], LADDER)
    variances, evidence = [], []
    for noise in (0.0125, 0.025, 0.05):
        known = 0.4**2 + (1.2 * noise) ** 2
        variances.append(known - known**2 / (known + noise**2) + noise**2)
        evidence.append(1 / math.sqrt(known + noise**2))
    variance = sum(map(math.prod, zip(evidence, variances, strict=True))) / sum(evidence)
    assert same.mean == 4.0
    assert same.stdev == pytest.approx(math.sqrt(variance))


def test_the_model_of_losses_learns_how_much_runs_differ() -> None:
    alike = {Point(rung, seed): 4.3 for rung in range(6) for seed in range(2)}
    apart = {point: loss + 0.05 * (-1) ** (point.rung + point.seed) for point, loss in alike.items()}
    calm, wild = (expected_losses(seen, [Point(3, 2)], LADDER)[0].stdev for seen in (alike, apart))
    assert calm < 0.03
    assert wild > 0.05


def test_how_badly_a_run_diverged_says_nothing_of_the_rates_below() -> None:
    bad, worse = (
        expected_losses({Point(0, 0): 4.3, Point(6, 0): 4.3, Point(8, 0): loss}, [Point(4, 0)], LADDER)
        for loss in (5.0, 9.0)
    )
    assert bad == worse


def test_another_seeds_curve_is_carried_over() -> None:
    curve = {0: 4.5, 2: 4.3, 4: 4.1, 6: 4.3}
    seen = {Point(rung, 0): loss for rung, loss in curve.items()} | {Point(0, 1): 4.6, Point(6, 1): 4.4}
    (expected,) = expected_losses(seen, [Point(4, 1)], LADDER)
    assert 4.1 < expected.mean < 4.25
