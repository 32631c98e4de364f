"""Ladders from ranges, intervals and lists, and what is refused as one."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.errors import UserError
from redline.search.policy.ladder import from_interval, from_range, from_values, rounded

few = settings(max_examples=100, derandomize=True, deadline=None)
rates = st.floats(1e-6, 10.0, allow_nan=False)


def test_a_range_counts_its_stop_where_a_step_lands_on_it() -> None:
    assert from_range(0.02, 0.2, 0.02) == [0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2]
    assert from_range(0.02, 0.05, 0.02) == [0.02, 0.04]
    assert from_range(1, 3, 1) == [1.0, 2.0, 3.0]


def test_a_range_may_go_down() -> None:
    assert from_range(0.3, 0.1, -0.1) == [0.1, 0.2, 0.3]


@given(st.integers(1, 500), st.integers(2, 60), st.integers(1, 50), st.sampled_from([100, 1000, 10_000]))
@few
def test_a_range_has_no_float_dust(first: int, count: int, step: int, per_one: int) -> None:
    """What one would write down by hand, for any start, step and number of rungs."""
    last = first + (count - 1) * step
    ladder = from_range(first / per_one, last / per_one, step / per_one)
    assert ladder == [(first + step * index) / per_one for index in range(count)]


@pytest.mark.parametrize(
    ("start", "stop", "step", "said"),
    [
        (0.001, 0.08, 1, "default is 1"),  # Hydra's default step
        (0.1, 0.2, 0, "step is 0"),
        (0.2, 0.1, 0.02, "gives 0 value"),
        (-0.02, 0.02, 0.02, "above 0"),
        (0, 0.04, 0.02, "above 0"),
        (0.1, math.inf, 0.1, "lr="),
        (math.nan, 1, 0.1, "lr="),
        (0.1, 1, math.nan, "lr="),
    ],
)
def test_a_range_that_is_no_ladder_is_refused(start: float, stop: float, step: float, said: str) -> None:
    with pytest.raises(UserError, match=r"^lr=") as refused:
        from_range(start, stop, step)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_values_are_sorted_and_rungs_that_read_alike_are_one() -> None:
    assert from_values(["0.3", "0.1", 0.30000000000000004, "1e-1", 0.2]) == [0.1, 0.2, 0.3]
    assert rounded(0.060000000000000005) == 0.06


@pytest.mark.parametrize("values", [["0.1", "abc"], ["0.1", "-1"], ["0", "0.1"], ["nan", "1"], ["inf", "1"]])
def test_a_value_that_is_no_rate_is_refused(values: list[str]) -> None:
    with pytest.raises(UserError, match=r"^lr=(abc|-1|0|nan|inf): .*numbers above 0"):
        from_values(values)


@pytest.mark.parametrize("values", [[], ["0.1"], ["0.1", "0.1000000001"]])
def test_one_value_is_no_ladder(values: list[str]) -> None:
    with pytest.raises(UserError, match=r"^lr=.*two or more"):
        from_values(values)


@given(rates, st.floats(1.01, 1e4), st.floats(0.01, 2.0))
@few
def test_an_interval_climbs_evenly_between_its_own_ends(low: float, ratio: float, tolerance: float) -> None:
    low = rounded(low)
    high = rounded(low * ratio)
    ladder = from_interval(low, high, tolerance)
    assert (ladder[0], ladder[-1]) == (low, high)
    for below, above in itertools.pairwise(ladder):
        assert below < above
        assert above / below <= (1 + tolerance) * (1 + 2e-5)  # six digits are kept of a rung


def test_an_interval_takes_no_rung_more_than_its_tolerance_asks_for() -> None:
    assert from_interval(1.0, 8.0, 1.0) == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("low", "high", "tolerance", "key"),
    [
        (0.2, 0.1, 0.1, "lr="),
        (0.1, 0.1, 0.1, "lr="),
        (0, 1, 0.1, "lr="),
        (-1, 1, 0.1, "lr="),
        (0.1, math.inf, 0.1, "lr="),
        (math.nan, 1, 0.1, "lr="),
    ],
)
def test_an_interval_that_is_none_is_refused(low: float, high: float, tolerance: float, key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}"):
        from_interval(low, high, tolerance)
