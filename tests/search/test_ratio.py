"""How many times a variant's edges are those of another one."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from search_helpers import MadeUp, question, searched

from redline.search.policy.ratio import edge_ratio
from redline.search.policy.state import SearchState
from redline.search.result import Ratio

LADDER = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SHIFTS = (1.4, 0.75, 1.0)


def found(
    useful: float, factors: Sequence[float] = SHIFTS, seeds: int = 3, scale: float = 1.0
) -> SearchState:
    ladder = tuple(value * scale for value in LADDER)
    variant = MadeUp(useful * scale, breaks=2 * useful * scale, factors=factors)
    return searched(variant, question(ladder, seeds, resolution=1.3, settled=1.0, budget=15))


def ratio(its: SearchState, unit: SearchState, claim: float | None = None, paired: bool = True) -> Ratio:
    return edge_ratio(its, unit, to="qk", claim=claim, paired=paired)


def width(its: Ratio) -> float:
    assert its.useful_90 is not None
    return its.useful_90[1] / its.useful_90[0]


@pytest.fixture(scope="module")
def first() -> SearchState:
    return found(0.15)


@pytest.fixture(scope="module")
def second() -> SearchState:
    return found(0.3)


def test_a_ratio_has_its_interval_and_its_chances(first: SearchState, second: SearchState) -> None:
    its = ratio(second, first, claim=1.5)
    assert its.to == "qk"
    assert its.useful is not None
    assert its.useful_90 is not None
    assert its.useful_90[0] < its.useful < its.useful_90[1]
    assert 1.5 < its.useful < 2.7
    assert its.useful_chance is not None
    assert its.useful_claim_chance is not None
    assert 0.9 < its.useful_chance <= 1
    assert its.useful_claim_chance < its.useful_chance
    assert its.stable is not None
    assert 1.2 < its.stable < 3.3
    assert ratio(second, first).useful_claim_chance is None


def test_the_other_way_round_it_is_one_over_it(first: SearchState, second: SearchState) -> None:
    its, other = ratio(second, first), ratio(first, second)
    for one, its_inverse in ((its.useful, other.useful), (its.stable, other.stable)):
        assert one is not None
        assert its_inverse is not None
        assert one * its_inverse == pytest.approx(1, rel=0.02)
    assert its.useful_90 is not None
    assert other.useful_90 is not None
    assert its.useful_90[0] * other.useful_90[1] == pytest.approx(1, rel=0.02)
    assert its.useful_chance is not None
    assert other.useful_chance is not None
    assert its.useful_chance + other.useful_chance == pytest.approx(1, abs=0.01)


def test_units_do_not_matter(first: SearchState, second: SearchState) -> None:
    its, scaled = ratio(second, first), ratio(found(0.3, scale=10), found(0.15, scale=10))
    assert scaled.useful == pytest.approx(its.useful, rel=0.01)
    assert scaled.useful_90 == pytest.approx(its.useful_90, rel=0.01)


def test_a_variant_with_other_seeds_is_about_once_itself(first: SearchState) -> None:
    again = ratio(found(0.15, factors=(0.8, 1.3, 1.05)), first, paired=False)
    assert again.useful_90 is not None
    assert again.useful_90[0] < 1 < again.useful_90[1]
    assert again.useful_chance is not None
    assert 0.02 < again.useful_chance < 0.98


def test_seeds_that_shift_both_alike_make_it_narrower(first: SearchState, second: SearchState) -> None:
    assert width(ratio(second, first)) < width(ratio(second, first, paired=False))


def test_a_pairing_that_says_nothing_changes_nothing(first: SearchState) -> None:
    """Without a seed in common, each pair counts alike."""
    state = found(0.3, seeds=1)
    other = SearchState(**{**vars(state), "outcomes": {}})
    its = ratio(other, first)
    assert (its.useful, its.stable) == (None, None), "nothing has run"
    assert not np.isnan(width(ratio(state, first)))


def test_where_an_edge_is_censored_there_is_no_ratio(first: SearchState) -> None:
    above = searched(MadeUp(100.0), question(LADDER))
    its = ratio(above, first, claim=1.5)
    assert its == Ratio("qk")
    assert ratio(first, above) == Ratio("qk")
    only_useful = searched(MadeUp(0.3, breaks=math.inf), question(LADDER))
    its = ratio(only_useful, first)
    assert its.useful is not None
    assert its.stable is None
