"""The bisection, by simulation: any ladder, any edge, any seeds, any number and order of workers."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_helpers import DEGRADED, Searched, monotone, outcome, simulate

from redline.search.policy.answer import variant_result
from redline.search.policy.bisection import next_point
from redline.search.policy.state import Question, search_state
from redline.search.policy.verdicts import (
    Bracket,
    Point,
    bracket,
    diverged_votes_needed,
    reasons,
    rung_verdicts,
    rung_votes,
)
from redline.search.result import VariantResult
from redline.search.trainable import Facts
from redline.stability import Outcome

VOTES = st.sampled_from(["any", "majority", "all"])
few = settings(max_examples=60, derandomize=True, deadline=None)
many = settings(max_examples=120, derandomize=True, deadline=None)


def answer(searched: Searched, rungs: int, seeds: int, vote: str) -> VariantResult:
    """Of a search on a ladder of 1, 2, 3, …"""
    question = Question(tuple(rung + 1.0 for rung in range(rungs)), seeds, vote, doubt=1.0)
    state = search_state(question, DEGRADED, searched.outcomes, given_up=searched.given_up)
    return variant_result(state, Facts(max_steps=10))


@st.composite
def monotone_searches(draw: st.DrawFn) -> dict[str, Any]:
    """A ladder on which every seed is stable up to an edge of its own and diverges from there on."""
    rungs, seeds = draw(st.integers(2, 40)), draw(st.integers(1, 5))
    edges = draw(st.lists(st.integers(0, rungs), min_size=seeds, max_size=seeds))
    return {"rungs": rungs, "seeds": seeds, "vote": draw(VOTES), "edges": edges}


def true_edge(search: dict[str, Any]) -> int:
    """The first rung that the vote calls diverged; the ladder's length where there is none."""
    return sorted(search["edges"])[diverged_votes_needed(search["seeds"], search["vote"]) - 1]


def shape(search: dict[str, Any]) -> dict[str, Any]:
    return {key: search[key] for key in ("rungs", "seeds", "vote")}


@st.composite
def any_searches(draw: st.DrawFn, crashes: bool = False) -> dict[str, Any]:
    """A grid of any outcomes: stable or not in any order, any validation losses or none, some crashing."""
    rungs, seeds = draw(st.integers(2, 9)), draw(st.integers(1, 4))
    losses = st.none() | st.sampled_from([math.nan, math.inf, 3.0, 3.2, 3.5, 3.75, 4.0, 5.0])
    ends = st.builds(
        lambda reason, loss: outcome(reason=reason, val_loss=loss),
        st.sampled_from([None, None, None, "blow_up"]),
        losses,
    )
    one = st.one_of(ends, ends, st.none()) if crashes else ends
    points = [Point(rung, seed) for rung in range(rungs) for seed in range(seeds)]
    found = draw(st.lists(one, min_size=len(points), max_size=len(points)))
    return {
        "rungs": rungs,
        "seeds": seeds,
        "vote": draw(VOTES),
        "grid": dict(zip(points, found, strict=True)),
    }


@given(monotone_searches())
@few
def test_finds_the_edge_of_a_monotone_ladder(search: dict[str, Any]) -> None:
    searched = simulate(monotone(search["edges"], search["rungs"]), **shape(search), speculative=False)
    entry, edge = answer(searched, **shape(search)), true_edge(search)
    if edge == 0:
        assert (entry.max_stable_lr, entry.censored) == (None, "below")
    elif edge == search["rungs"]:
        assert (entry.max_stable_lr, entry.censored) == (None, "above")
    else:
        # The ladder is 1, 2, 3, …, so the rung below the edge has the edge's index as its LR.
        assert (entry.max_stable_lr, entry.first_diverged_lr) == (edge, edge + 1)
        assert entry.censored is None
    assert entry.stable_above == entry.open == ()


@given(monotone_searches())
@few
def test_costs_at_most_a_bisection_and_four_runs_of_each_seed(search: dict[str, Any]) -> None:
    searched = simulate(monotone(search["edges"], search["rungs"]), **shape(search), speculative=False)
    most = math.ceil(math.log2(search["rungs"] + 1)) + 4
    for seed in range(search["seeds"]):
        assert sum(point.seed == seed for point in searched.asked) <= most


@given(monotone_searches())
@few
def test_every_seed_runs_its_lowest_rung_before_any_other(search: dict[str, Any]) -> None:
    searched = simulate(monotone(search["edges"], search["rungs"]), **shape(search), speculative=False)
    assert searched.asked[0] == Point(0, 0)
    for seed in {point.seed for point in searched.asked}:
        assert next(point for point in searched.asked if point.seed == seed).rung == 0


@given(monotone_searches(), st.integers(1, 8), st.data())
@few
def test_the_verdict_hangs_neither_on_the_order_nor_on_the_workers(
    search: dict[str, Any], workers: int, data: st.DataObject
) -> None:
    grid = monotone(search["edges"], search["rungs"])
    alone = answer(simulate(grid, **shape(search), speculative=False), **shape(search))
    choose = lambda count: data.draw(st.integers(0, count - 1), label="the next to end")  # noqa: E731
    together = answer(simulate(grid, **shape(search), workers=workers, choose=choose), **shape(search))
    for key in ("max_stable_lr", "first_diverged_lr", "censored", "first_diverged_reason", "open"):
        assert getattr(together, key) == getattr(alone, key), key


@given(any_searches(crashes=True), st.integers(1, 6), st.booleans(), st.data())
@many
def test_any_outcomes_end_the_search_without_waiting_or_circling(
    search: dict[str, Any], workers: int, speculative: bool, data: st.DataObject
) -> None:
    """`simulate` asserts that no point is asked for twice and that nobody waits for nobody."""
    choose = lambda count: data.draw(st.integers(0, count - 1), label="the next to end")  # noqa: E731
    searched = simulate(
        search["grid"], **shape(search), workers=workers, speculative=speculative, choose=choose
    )
    known = rung_verdicts(reasons(searched.outcomes, DEGRADED), **shape(search))
    ends = bracket(known)
    still_open = set(range(ends.stable + 1, ends.diverged))
    # What keeps the ends of the bracket apart is left open for good, and named.
    for rung in still_open:
        undecided = {Point(rung, seed) for seed in range(search["seeds"])} - set(searched.outcomes)
        assert undecided
        assert undecided <= searched.given_up
    assert answer(searched, **shape(search)).open == tuple(rung + 1.0 for rung in sorted(still_open))


@given(any_searches(), st.integers(1, 6), st.data())
@few
def test_without_crashes_the_bracket_closes(
    search: dict[str, Any], workers: int, data: st.DataObject
) -> None:
    choose = lambda count: data.draw(st.integers(0, count - 1), label="the next to end")  # noqa: E731
    searched = simulate(search["grid"], **shape(search), workers=workers, choose=choose)
    known = rung_verdicts(reasons(searched.outcomes, DEGRADED), **shape(search))
    ends = bracket(known)
    assert ends.diverged == ends.stable + 1
    assert known[0] is not None


@given(monotone_searches())
@few
def test_what_is_called_stable_is_decided_by_runs_of_its_own(search: dict[str, Any]) -> None:
    searched = simulate(monotone(search["edges"], search["rungs"]), **shape(search), speculative=False)
    verdicts = reasons(searched.outcomes, DEGRADED)
    stable = bracket(rung_verdicts(verdicts, **shape(search))).stable
    votes = [verdicts[point] is None for point in verdicts if point.rung == stable]
    needed = search["seeds"] + 1 - diverged_votes_needed(search["seeds"], search["vote"])
    assert stable < 0 or votes.count(True) >= needed


@given(any_searches(), st.data())
@few
def test_rule_five_gives_the_same_verdicts_in_any_order_of_arrival(
    search: dict[str, Any], data: st.DataObject
) -> None:
    points = list(search["grid"])
    before: set[Point] = set()
    arrived: dict[Point, Outcome] = {}
    for point in data.draw(st.permutations(points)):
        arrived[point] = search["grid"][point]
        now = {point for point, reason in reasons(arrived, DEGRADED).items() if reason}
        assert before <= now, "an arrival turned diverged into stable"
        before = now
    assert reasons(arrived, DEGRADED) == reasons(search["grid"], DEGRADED)


@given(any_searches(), st.integers(1, 6), st.data())
@few
def test_in_a_search_rule_five_only_turns_stable_into_diverged(
    search: dict[str, Any], workers: int, data: st.DataObject
) -> None:
    choose = lambda count: data.draw(st.integers(0, count - 1), label="the next to end")  # noqa: E731
    history = simulate(search["grid"], **shape(search), workers=workers, choose=choose).diverged_by_then
    for earlier, later in itertools.pairwise(history):
        assert earlier <= later


@pytest.mark.parametrize(
    ("loss", "own_reason", "expected"),
    [
        (4.25, None, None),  # the tolerance itself is allowed
        (4.26, None, "degraded"),
        (None, "blow_up", "blow_up"),  # ended before its validation
        (9.0, "no_learning", "no_learning"),  # its own reason stays
        (math.nan, "no_learning", "no_learning"),
    ],
)
def test_rule_five_compares_with_the_smaller_rates_of_the_same_seed(
    loss: float | None, own_reason: str | None, expected: str | None
) -> None:
    outcomes = {
        Point(0, 0): outcome(val_loss=4.0),
        Point(0, 1): outcome(val_loss=1.0),  # another seed's
        Point(1, 0): outcome(val_loss=loss, reason=own_reason),
        Point(2, 0): outcome(val_loss=3.9),  # a larger rate
    }
    assert reasons(outcomes, DEGRADED)[Point(1, 0)] == expected


def test_a_poor_lowest_rung_is_never_degraded() -> None:
    outcomes = {Point(rung, 0): outcome(val_loss=5.0 - rung) for rung in range(4)}
    assert set(reasons(outcomes, DEGRADED).values()) == {None}


def test_a_late_smaller_rate_moves_the_bracket_down() -> None:
    """Rung 4 was stable until rung 2 came in, which learns far more: the edge is now between them."""
    seen = {0: 5.0, 4: 4.9, 5: None}
    outcomes = {
        Point(rung, 0): outcome(val_loss=loss, reason="blow_up" if loss is None else None)
        for rung, loss in seen.items()
    }
    shape_of = {"rungs": 6, "seeds": 1, "vote": "any"}
    assert next_point(reasons(outcomes, DEGRADED), **shape_of) is None
    outcomes[Point(2, 0)] = outcome(val_loss=4.0)
    verdicts = reasons(outcomes, DEGRADED)
    assert bracket(rung_verdicts(verdicts, **shape_of)) == Bracket(2, 4)
    assert next_point(verdicts, **shape_of) == Point(3, 0)


def test_a_further_seed_runs_only_beside_the_first_ones_edge() -> None:
    """Of three seeds the majority decides: the third runs where the first two disagree."""
    shape_of = {"rungs": 12, "seeds": 3, "vote": "majority"}
    agreeing = simulate(monotone([5, 5, 5], 12), **shape_of, speculative=False).asked
    assert sorted(point for point in agreeing if point.seed == 1) == [Point(0, 1), Point(4, 1), Point(5, 1)]
    assert all(point.seed < 2 for point in agreeing)
    split = simulate(monotone([5, 6, 5], 12), **shape_of, speculative=False).asked
    assert sorted(point for point in split if point.seed == 2) == [Point(0, 2), Point(5, 2)]


@pytest.mark.parametrize("edges", [(3, 4), (9, 8), (3, 5)])
def test_a_seed_that_passes_the_others_edge_looks_right_behind_it(edges: tuple[int, int]) -> None:
    first, further = edges
    searched = simulate(
        monotone([first, further, further], 12), rungs=12, seeds=3, vote="majority", speculative=False
    )
    seconds = {point.rung for point in searched.asked if point.seed == 1}
    assert max(abs(rung - first) for rung in seconds - {0}) <= 3


def test_a_rung_that_a_seed_has_not_run_follows_from_its_own_edge() -> None:
    verdicts = {Point(2, 0): None, Point(3, 0): "blow_up"}
    assert rung_votes(verdicts, 6, 0) == [False, False, False, True, True, True]
    assert rung_votes(verdicts, 6, 1) == [None] * 6
    assert rung_votes({**verdicts, Point(4, 0): None, Point(1, 0): None}, 6, 0)[4] is False, "it was run"


@given(monotone_searches(), st.integers(-1, 40))
@few
def test_a_hint_leads_to_the_same_answer(search: dict[str, Any], hinted: int) -> None:
    grid, shape_of = monotone(search["edges"], search["rungs"]), shape(search)
    edge, low = true_edge(search), min(hinted, search["rungs"] - 1)
    verdicts: dict[Point, str | None] = {}
    while (point := next_point(verdicts, **shape_of, hint=Bracket(low, low + 1))) is not None:
        assert point not in verdicts
        verdicts[point] = grid[point].reason
    assert bracket(rung_verdicts(verdicts, **shape_of)) == Bracket(edge - 1, edge)


def test_a_right_hint_leaves_little_to_run() -> None:
    verdicts: dict[Point, str | None] = {}
    while (point := next_point(verdicts, rungs=32, seeds=1, vote="any", hint=Bracket(9, 10))) is not None:
        verdicts[point] = "blow_up" if point.rung >= 10 else None
    assert set(verdicts) == {Point(0, 0), Point(9, 0), Point(10, 0)}
