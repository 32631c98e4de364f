"""What workers run ahead of need, and what a search is said to cost."""

from functools import partial

import pytest
from hypothesis import given
from search_helpers import DEGRADED, monotone, outcome, simulate
from test_bisection import few, monotone_searches, shape

from redline.search.policy.bisection import next_point
from redline.search.policy.cost import expected_cost
from redline.search.policy.speculation import plan, runs_to_go
from redline.search.policy.state import Question, search_state, wanted
from redline.search.policy.verdicts import Bracket, Point

HALVING = partial(next_point, rungs=9, seeds=1, vote="any")


def test_a_free_worker_runs_what_comes_next_however_the_running_one_ends() -> None:
    its = plan(HALVING, {Point(0, 0): None}, {Point(4, 0)}, speculative=2)
    assert its.needed == Point(4, 0)
    assert set(its.speculative) == {Point(2, 0), Point(6, 0)}


def test_speculative_runs_are_new_points_that_do_not_run_yet() -> None:
    seen, running = {Point(0, 0): None}, {Point(4, 0), Point(6, 0)}
    ahead = plan(HALVING, seen, running, speculative=20).speculative
    assert len(ahead) == len(set(ahead)) == 6
    assert not set(ahead) & (running | set(seen))


def test_a_search_that_is_answered_has_no_speculative_runs() -> None:
    its = plan(HALVING, {Point(0, 0): "blow_up"}, (), speculative=8)
    assert (its.needed, its.speculative) == (None, ())


@given(monotone_searches())
@few
def test_runs_to_go_are_the_runs_that_a_search_takes(search: dict) -> None:
    edges = [search["edges"][0]] * search["seeds"]
    asked = simulate(monotone(edges, search["rungs"]), **shape(search), speculative=False).asked
    policy = partial(next_point, **shape(search))
    assert runs_to_go(policy, {}, edges[0]) == len(asked)


def test_the_expected_cost_is_the_mean_over_every_edge() -> None:
    cost = expected_cost(Question((0.1, 0.2, 0.4), seeds=1, vote="any", doubt=1.0))
    # The lowest rung diverges; or the middle one decides, with the top one where it is stable.
    assert (cost.fewest, cost.most, cost.grid) == (1, 3, 3)
    assert cost.expected == pytest.approx((1 + 2 + 3 + 3) / 4)


def test_short_runs_make_full_length_runs_fewer() -> None:
    question = Question(tuple(0.1 * 1.3**rung for rung in range(20)), seeds=3, vote="majority", doubt=1.0)
    assert expected_cost(question, hinted=True).expected < expected_cost(question).expected


def test_needed_runs_come_before_speculative_ones_and_the_variant_with_fewest_workers_first() -> None:
    question = Question(tuple(0.1 * 2**rung for rung in range(8)), seeds=1, vote="any", doubt=1.0)
    lowest = {Point(0, 0): outcome(0.1)}
    states = {
        "busy": search_state(question, DEGRADED, lowest, {Point(4, 0): None}, speculative=2),
        "new": search_state(question, DEGRADED, {}, {}, speculative=2),
        "begun": search_state(question, DEGRADED, lowest, {Point(6, 0): None}, speculative=2),
    }
    order = wanted(states)
    assert order[:2] == [("new", Point(0, 0)), ("begun", Point(4, 0))]
    assert ("busy", Point(4, 0)) not in order
    assert {name for name, _ in order[2:]} == {"busy", "new", "begun"}


def test_a_variant_whose_short_runs_are_out_runs_its_lowest_rung_and_waits() -> None:
    question = Question(tuple(0.1 * 2**rung for rung in range(8)), seeds=1, vote="any", doubt=1.0)
    short_runs = search_state(question, DEGRADED, {Point(0, 0): outcome(0.1)})
    begun = search_state(question, DEGRADED, {}, short_runs=short_runs, speculative=4)
    assert wanted({"qk": begun}) == [("qk", Point(0, 0))]
    waiting = search_state(
        question, DEGRADED, {Point(0, 0): outcome(0.1)}, short_runs=short_runs, speculative=4
    )
    assert wanted({"qk": waiting}) == []
    assert not waiting.answered


def test_a_run_at_or_above_a_diverged_rung_is_moot() -> None:
    question = Question(tuple(0.1 * 2**rung for rung in range(8)), seeds=1, vote="any", doubt=1.0)
    seen = search_state(question, DEGRADED, {Point(0, 0): outcome(), Point(4, 0): outcome(reason="blow_up")})
    assert [rung for rung in range(8) if seen.unneeded(Point(rung, 0))] == [4, 5, 6, 7]


def test_the_run_that_shows_an_edge_which_follows_from_other_rungs_is_not_moot() -> None:
    """Each seed diverges somewhere below rung 2, which by vote diverged too: nobody ran it."""
    question = Question((0.1, 0.2, 0.4, 0.8), seeds=2, vote="majority", doubt=1.0)
    outcomes = {
        Point(1, 0): outcome(reason="blow_up"),
        Point(0, 1): outcome(reason="blow_up"),
        Point(1, 1): outcome(),
    }
    seen = search_state(question, DEGRADED, outcomes, speculative=4)
    assert seen.ends == Bracket(1, 2)
    assert seen.plan.needed == Point(2, 0)
    unneeded = [point for rung in range(4) if seen.unneeded(point := Point(rung, 0))]
    assert unneeded == [Point(3, 0)]
    assert not set(seen.plan.speculative) & set(unneeded)
