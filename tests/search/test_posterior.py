"""The interval of an edge: it holds the edge as often as it says, and narrows with evidence."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.search.policy.bisection import next_point
from redline.search.policy.posterior import edge_interval, edge_prior
from redline.search.policy.verdicts import Point

LADDER = [0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0]


def searched(edge: float, width: float, luck: random.Random, seeds: int) -> list[tuple[float, bool]]:
    """The votes that a search collects where runs diverge with a logistic's probability."""
    verdicts: dict[Point, str | None] = {}
    while True:
        point = next_point(verdicts, rungs=len(LADDER), seeds=seeds, vote="majority")
        if point is None:
            return [(LADDER[its.rung], reason is not None) for its, reason in verdicts.items()]
        chance = 1 / (1 + math.exp(-(math.log(LADDER[point.rung]) - edge) / width))
        verdicts[point] = "blow_up" if luck.random() < chance else None


@pytest.mark.parametrize("seeds", [1, 3])
def test_it_holds_the_edge_nine_times_of_ten(seeds: int) -> None:
    """Edges and widths drawn from the prior: a right posterior is calibrated, wherever the search looks."""
    luck, held, count = random.Random(seeds), 0, 300
    edges, widths = edge_prior(LADDER)
    for _ in range(count):
        edge, width = luck.choice(list(edges)), luck.choice(list(widths))
        low, high = edge_interval(searched(edge, width, luck, seeds), LADDER)
        held += low * 0.999 <= math.exp(edge) <= high * 1.001
    assert 0.85 < held / count < 0.95


def test_seeds_that_agree_narrow_it() -> None:
    votes = [(0.02, False), (0.05, False), (0.08, True)]
    one, three = edge_interval(votes, LADDER), edge_interval(votes * 3, LADDER)
    assert one[0] < three[0] < 0.065 < three[1] < one[1]


def test_seeds_that_disagree_widen_it() -> None:
    votes = [(0.02, False), (0.05, False), (0.08, True), (0.12, True)]
    agreed, split = votes * 2, [*votes, (0.02, False), (0.05, True), (0.08, False), (0.12, True)]
    width = lambda interval: interval[1] / interval[0]  # noqa: E731
    assert width(edge_interval(split, LADDER)) > width(edge_interval(agreed, LADDER))


@given(st.lists(st.tuples(st.sampled_from(LADDER), st.booleans()), max_size=40), st.randoms())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_it_is_an_interval_within_the_prior_whatever_the_votes(
    votes: list[tuple[float, bool]], luck: random.Random
) -> None:
    low, high = edge_interval(votes, LADDER)
    edges, _ = edge_prior(LADDER)
    assert math.exp(edges[0]) * 0.99 <= low <= high <= math.exp(edges[-1]) * 1.01
    luck.shuffle(votes)
    assert edge_interval(votes, LADDER) == (low, high)


def test_without_a_vote_it_is_the_prior() -> None:
    edges, _ = edge_prior(LADDER)
    low, high = np.log(edge_interval([], LADDER))
    assert (high - low) / (edges[-1] - edges[0]) == pytest.approx(0.9, abs=0.01)
