"""A variant's search as a pure function of its outcomes: what is asked for, and when it ends."""

import itertools
import math
import random
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from search_helpers import BEST, FLOOR, STEPS, MadeUp, cut_outcome, outcome, question, searched

from redline.search.policy.curve import COLUMNS, rise_and_fall
from redline.search.policy.edges import interval
from redline.search.policy.points import Point
from redline.search.policy.state import SearchState, search_state, wanted
from redline.stability import Outcome

LADDER = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
VARIANT = MadeUp(useful=0.3, breaks=1.5)


def edge(state: SearchState) -> float:
    return math.exp(median(state.useful_S))


def ends(state: SearchState) -> tuple[float, float]:
    low, high = interval(state.useful_S)
    return math.exp(low), math.exp(high)


def holds(state: SearchState, useful: float) -> bool:
    """Whether the interval holds the edge, or misses it by little: it is one of 90%."""
    low, high = ends(state)
    return low / 1.25 < useful < high * 1.25


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("useful", [0.03, 0.12, 0.3, 0.8])
def test_a_search_finds_the_edge_with_a_part_of_the_grid(useful: float, workers: int) -> None:
    asked = question(LADDER, seeds=3, resolution=1.8, settled=1.0)
    state = searched(MadeUp(useful, breaks=4 * useful), asked, workers=workers, luck=random.Random(1))
    assert holds(state, useful)
    assert state.width <= 1.8
    assert state.stopped == "resolution"
    assert len(state.outcomes) < len(LADDER) * 3


def test_the_order_in_which_runs_end_does_not_matter() -> None:
    outcomes = searched(VARIANT, question(LADDER, seeds=2)).outcomes
    states = []
    for number in range(3):
        points = list(outcomes)
        random.Random(number).shuffle(points)
        states.append(search_state(question(LADDER, seeds=2), {point: outcomes[point] for point in points}))
    for other in states[1:]:
        assert np.array_equal(other.useful_S, states[0].useful_S)
        assert (other.next, other.stopped) == (states[0].next, states[0].stopped)


@pytest.mark.parametrize("factor", [10.0, 0.1, 1e6])
def test_units_do_not_matter(factor: float) -> None:
    scaled = tuple(float(f"{value * factor:.6g}") for value in LADDER)
    other = MadeUp(VARIANT.useful * factor, VARIANT.breaks * factor)
    before, after = searched(VARIANT, question(LADDER)), searched(other, question(scaled))
    assert list(after.outcomes) == list(before.outcomes)
    assert edge(after) == pytest.approx(edge(before) * factor, rel=1e-3)
    assert ends(after) == pytest.approx([end * factor for end in ends(before)], rel=1e-3)


def test_more_seeds_do_not_widen_the_interval_much() -> None:
    widths = [searched(VARIANT, question(LADDER, seeds, resolution=1.01)).width for seeds in (1, 2, 4)]
    assert widths[1] < 1.1 * widths[0]
    assert widths[2] < 1.1 * widths[1]


def test_what_is_answered_does_not_depend_on_what_runs() -> None:
    asked = question(LADDER, seeds=2)
    outcomes = dict([*searched(VARIANT, asked).outcomes.items()][:4])
    state = search_state(asked, outcomes)
    again = search_state(asked, outcomes, dict.fromkeys(state.next))
    assert np.array_equal(again.useful_S, state.useful_S)
    assert state.next[0] not in again.next


def test_so_many_runs_are_named_and_none_that_runs() -> None:
    state = search_state(question(LADDER, seeds=2), {}, wanted=5)
    assert len(set(state.next)) == 5
    more = search_state(question(LADDER, seeds=2), {}, dict.fromkeys(state.next), wanted=5)
    assert not {*more.next} & {*state.next}


def test_the_resolution_ends_a_search() -> None:
    states = [searched(VARIANT, question(LADDER, 3, resolution=its, settled=1.0)) for its in (3.0, 1.6)]
    assert [state.stopped for state in states] == ["resolution"] * 2
    assert states[0].width <= 3.0
    assert states[1].width <= 1.6
    assert len(states[0].outcomes) < len(states[1].outcomes)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_budget_ends_a_search(workers: int) -> None:
    state = searched(VARIANT, question(LADDER, 3, resolution=1.01, budget=4), workers=workers)
    assert state.stopped == "budget"
    spent = sum(its.optimizer_steps for its in state.outcomes.values()) / 10
    assert 4 <= spent <= 4 + workers  # that runs were to end early is a guess


def test_a_search_that_gains_nothing_ends() -> None:
    state = searched(VARIANT, question(LADDER, 3, resolution=1.01, settled=1.2))
    assert state.stopped == "settled"
    assert state.next_gain is not None
    assert state.next_gain < 1.2


def test_a_search_ends_when_no_run_is_left() -> None:
    state = searched(VARIANT, question(LADDER[3:6], resolution=1.01, settled=1.0))
    assert state.stopped == "runs"
    assert len(state.outcomes) == 3


def test_a_search_whose_runs_all_crash_ends() -> None:
    state = searched(VARIANT, question(LADDER[:3]), crashes=LADDER)
    assert state.stopped == "runs"
    assert len(state.given_up) == 3


@pytest.mark.parametrize("useful", [0.002, 30.0])
def test_the_ladder_grows_where_the_edge_lies_outside(useful: float) -> None:
    variant = MadeUp(useful, breaks=8 * useful)
    state = searched(variant, question(LADDER, extend=True))
    tried = {state.question.values[point.rung] for point in state.outcomes}
    assert (min(tried) < useful) if useful < 1 else (max(tried) > useful)
    assert holds(state, useful)


class Recorded(MadeUp):
    """`tiny` without QK norm, as it was measured at these LRs, with noise; it learns less below them."""

    lrs = (0.003, 0.006, 0.013, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5)
    losses = (4.4, 4.26, 4.35, 4.56, 4.58, 4.64, 4.85, 5.0, 5.3, 5.5)

    def run(self, value: float, seed: int) -> Outcome:
        if value >= self.breaks:
            return super().run(value, seed)
        chance = random.Random(f"{value} {self.width}")
        lr = value * math.exp(chance.gauss(0, 0.1))
        loss = float(np.interp(math.log(lr), np.log(self.lrs), self.losses)) + chance.gauss(0, 0.05)
        return outcome(value, seed, val_loss=loss, steps=STEPS)


def test_the_edge_does_not_depend_on_where_the_ladder_begins() -> None:
    """The best loss is looked for below the ladder, also where its second rung is better by chance."""
    ladder = (0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0)
    for number in range(6):
        noisy = Recorded(useful=0.055, breaks=1.5, width=number)
        state = searched(noisy, question(ladder, extend=True, criterion="both"))
        assert state.best is not None
        assert state.best < 4.45
        assert holds(state, 0.055)


def test_the_ladder_does_not_grow_past_its_limits() -> None:
    state = searched(MadeUp(30.0), question(LADDER, extend=True, high=5.0, low=0.01))
    tried = [state.question.values[point.rung] for point in state.outcomes]
    assert max(tried) == 4.0
    assert min(tried) >= 0.01


def test_rungs_that_the_ladder_has_grown_by_stay() -> None:
    asked = question((0.1, 0.2), extend=True)
    outcomes = {Point(rung, 0): outcome(asked.values[rung], val_loss=4.5 + rung / 10) for rung in (0, 1, -1)}
    state = search_state(asked, outcomes, wanted=20)
    assert {point.rung for point in state.next} >= {-2}
    assert state.its.x_X[0] <= math.log(asked.values[-2])


@pytest.mark.parametrize(
    ("reason", "tried"), [("no_learning", {*range(-6, 8)}), ("blow_up", {*range(-6, 1), 2})]
)
def test_a_variant_that_learns_nothing_is_tried_once_where_it_might(reason: str, tried: set[int]) -> None:
    class Nothing(MadeUp):
        def run(self, value: float, seed: int) -> Outcome:
            return outcome(value, seed, reason=reason, val_loss=FLOOR + 0.1)

    state = searched(Nothing(1.0), question(LADDER, seeds=3, extend=True))
    assert (state.best, state.stopped) == (None, "runs")
    assert {point.rung for point in state.outcomes} == tried
    assert len(state.outcomes) == len(tried)


def test_a_cut_run_may_be_asked_for_again_and_its_full_outcome_counts() -> None:
    asked = question(LADDER)
    outcomes = {Point(rung, 0): VARIANT.run(LADDER[rung], 0) for rung in (2, 3)}
    outcomes[Point(5, 0)] = cut_outcome(LADDER[5], expected=(FLOOR + BEST) / 2)
    state = search_state(asked, outcomes, wanted=50)
    assert Point(5, 0) in state.next
    assert Point(2, 0) not in state.next
    assert edge(state) < LADDER[5]


def test_a_cut_run_far_above_the_edge_is_not_asked_for_again() -> None:
    asked = question(LADDER)
    outcomes = {Point(rung, 0): MadeUp(0.03).run(LADDER[rung], 0) for rung in (0, 1, 2, 3)}
    outcomes[Point(7, 0)] = cut_outcome(LADDER[7], expected=FLOOR - 0.2)
    assert Point(7, 0) not in search_state(asked, outcomes, wanted=50).next


def test_a_cut_run_says_less_than_one_that_ended() -> None:
    asked = question(LADDER)
    outcomes = {Point(rung, 0): VARIANT.run(LADDER[rung], 0) for rung in (2, 3, 5)}
    assert outcomes[Point(5, 0)].val_loss is not None
    cut = cut_outcome(LADDER[5], expected=outcomes[Point(5, 0)].val_loss)
    full, guess = search_state(asked, outcomes), search_state(asked, {**outcomes, Point(5, 0): cut})
    assert full.width <= guess.width * 1.02


def test_hints_say_where_to_begin_and_are_no_limit() -> None:
    first = search_state(question(LADDER), {}, hints=[0.9]).next[0]
    assert LADDER[first.rung] == 0.5
    state = search_state(question(LADDER, 2), searched(VARIANT, question(LADDER, 2)).outcomes, hints=[0.02])
    assert holds(state, VARIANT.useful)


def test_where_no_floor_is_known_only_divergence_is_a_loss() -> None:
    unknown = {
        Point(rung, 0): replace(outcome(LADDER[rung], val_loss=2.0 + rung), initial_loss=math.nan)
        for rung in (1, 3)
    }
    unknown[Point(5, 0)] = replace(
        outcome(LADDER[5], reason="non_finite", val_loss=None), initial_loss=math.nan
    )
    state = search_state(question(LADDER), unknown)
    assert (state.floor, state.best) == (None, 3.0)
    assert LADDER[3] < edge(state) < LADDER[5]


def test_about_how_many_runs_are_left() -> None:
    asked = question(LADDER, 3)
    state = searched(VARIANT, asked)
    assert state.runs_left == 0
    begun = search_state(asked, {}, wanted=1)
    assert 1 <= begun.runs_left <= len(LADDER) * 3
    assert search_state(replace(asked, budget=2), {}).runs_left <= 2


def test_free_workers_go_to_the_variant_that_fewest_work_on() -> None:
    asked = question(LADDER, 2)
    busy = search_state(asked, {}, {Point(1, 0): None, Point(2, 0): None}, wanted=2)
    idle = search_state(asked, {}, wanted=2)
    names = [name for name, _ in wanted({"busy": busy, "idle": idle})]
    assert names[:2] == ["idle", "idle"]
    assert names.count("busy") == 2


def test_many_seeds_are_not_looked_at_at_once() -> None:
    state = search_state(question(LADDER, 1000), {}, max_steps=10, wanted=4)
    assert len(state.next) == 4
    assert state.its.shares_SC.shape[1] == 4 * len(LADDER)


def test_no_draw_overflows() -> None:
    """A warning would reach the user's terminal, and a NaN every draw's weight."""
    draws = np.array([[0.0, *logs] for logs in itertools.product((-12.0, 8.0), repeat=COLUMNS - 1)])
    with np.errstate(all="raise", under="ignore"):
        rise, best = rise_and_fall(draws, np.linspace(-20, 20, 5)[None])
    assert np.isfinite(rise).all()
    assert ((best >= 0) & (best <= 1)).all()
