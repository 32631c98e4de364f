"""What counts as worse."""

import math
import random
from dataclasses import replace

import pytest
from gate_helpers import LADDER, NATS, RESULTS, between, entries, entry, old_entry, posterior, result
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from redline.gate.__main__ import CONFIDENCE, TOLERANCE
from redline.gate.compare import (
    Edge,
    compare,
    compare_edge,
    compare_loss,
    paired_interval,
    stable_edge,
    useful_edge,
    welch_interval,
)

LOSSES = st.lists(NATS, min_size=2, max_size=5)


def worse(baseline, new):
    """The variants that got worse."""
    return {
        its.variant for its in compare(baseline, new, tolerance=TOLERANCE, confidence=CONFIDENCE) if its.worse
    }


def with_variant(its, name, **changed):
    """A result in which that variant is another."""
    return replace(its, variants={**its.variants, name: replace(its.variants[name], **changed)})


def useful(before, now):
    return compare_edge(useful_edge(before), useful_edge(now), LADDER, CONFIDENCE)


def edge(middle, spread):
    return Edge(middle, None, posterior(middle, spread), None, left_open=False)


def loss(before, now):
    return compare_loss(before, now, TOLERANCE, CONFIDENCE)


@given(RESULTS)
@settings(deadline=None, derandomize=True)
def test_nothing_is_worse_than_itself(its):
    assert worse(its, its) == set()


@given(RESULTS, st.data(), st.floats(0.01, 0.9), st.sampled_from(["useful", "stable"]))
@settings(deadline=None, derandomize=True)
def test_an_edge_below_the_baselines_posterior_is_worse_in_that_variant_alone(its, data, share, which):
    name = data.draw(st.sampled_from(sorted(its.variants)))
    was = getattr(its.variants[name], f"{which}_quantiles")
    assume(was)
    lower = tuple(at * was[0] * share / was[-1] for at in was)
    changed = {f"max_{which}_lr": lower[0], f"max_{which}_lr_90": between(lower), f"{which}_quantiles": lower}
    assert worse(its, with_variant(its, name, **changed)) == {name}


@given(RESULTS, st.data(), st.floats(0.21, 3.0))
@settings(deadline=None, derandomize=True)
def test_a_loss_that_every_seed_shows_is_worse_in_that_variant_alone(its, data, nats):
    name = data.draw(st.sampled_from(sorted(its.variants)))
    was = its.variants[name]
    assume(was.best_val_loss is not None)
    new = with_variant(
        its,
        name,
        val_loss=None if was.val_loss is None else was.val_loss + nats,
        best_val_loss=was.best_val_loss + nats,
        val_losses={seed: loss + nats for seed, loss in was.val_losses.items()},
    )
    assert worse(its, new) == {name}
    assert worse(new, its) == set()


@given(entries(), entries())
@settings(deadline=None, derandomize=True)
def test_two_edges_are_not_each_worse_than_the_other(a, b):
    assert not (useful(a, b).worse and useful(b, a).worse)
    assume(a.best_val_loss is not None and b.best_val_loss is not None)
    assert not (loss(a, b).worse and loss(b, a).worse)


@pytest.mark.parametrize(("ratio", "spread"), [(0.5, 0.2), (0.8, 0.4), (1.0, 0.1), (1.3, 0.3)])
def test_the_chance_is_that_of_two_normal_posteriors(ratio, spread):
    found = compare_edge(edge(1.0, spread), edge(ratio, spread), LADDER, CONFIDENCE)
    expected = stats.norm.cdf(-math.log(ratio) / (spread * 2**0.5))
    assert found.chance == pytest.approx(expected, abs=0.01)
    assert found.worse is (found.chance >= CONFIDENCE)


@pytest.mark.parametrize("spreads", [(0.05, 0.05), (0.2, 0.2), (0.05, 0.5)])
def test_of_unchanged_edges_whose_posteriors_keep_their_word_few_are_called_worse(spreads):
    draw = random.Random(0)
    alarms = 0
    for _ in range(2000):
        before, now = (edge(math.exp(draw.gauss(0, spread)), spread) for spread in spreads)
        alarms += compare_edge(before, now, LADDER, CONFIDENCE).worse
    assert alarms / 2000 < 0.03


ABOVE, BELOW, OPEN = 3, -1, None


@pytest.mark.parametrize(
    ("was", "now", "is_worse"),
    [
        (ABOVE, ABOVE, False),
        (ABOVE, 2, False),  # its posterior reaches the ladder's top, where the baseline's edge may lie
        (ABOVE, 1, True),
        (ABOVE, BELOW, True),
        (ABOVE, OPEN, True),
        (2, ABOVE, False),
        (1, BELOW, True),
        (0, BELOW, False),  # its posterior reaches the ladder's bottom
        (0, OPEN, True),
        (BELOW, BELOW, False),
        (BELOW, OPEN, True),
        (BELOW, 0, False),
        (BELOW, ABOVE, False),
        (OPEN, BELOW, False),
        (OPEN, OPEN, False),
        (OPEN, 1, False),
    ],
)
def test_censored_and_open_edges(was, now, is_worse):
    before, after = entry(was), entry(now, max_useful_lr_90=None)
    if now == 2:
        after = replace(after, useful_quantiles=posterior(0.5, 0.5))
    assert useful(before, after).worse is is_worse


def test_what_a_censored_edge_has_outside_the_ladder_is_its_prior_and_no_evidence():
    above = entry(ABOVE, useful_quantiles=posterior(8.0))
    at_the_top = entry(2, useful_quantiles=posterior(0.9, 0.1))
    assert not useful(above, at_the_top).worse
    assert useful(above, entry(0)).worse
    below = entry(BELOW, useful_quantiles=posterior(0.01))
    assert not useful(entry(0, useful_quantiles=posterior(0.1, 0.1)), below).worse
    assert not useful(below, entry(BELOW, useful_quantiles=posterior(0.001))).worse


def test_an_edge_that_a_result_lacks_is_not_compared_and_it_is_said():
    unknown = {"stable_quantiles": (), "max_stable_lr_90": None, "max_stable_lr": None}
    before, after = result(qk=entry(1)), result(qk=entry(1, **unknown))
    for pair, lacks in (((before, after), "the new result"), ((after, before), "the baseline")):
        (found,) = compare(*pair, tolerance=TOLERANCE, confidence=CONFIDENCE)
        assert not found.worse
        assert found.stable.why.startswith(f"not compared: {lacks}")


@pytest.mark.parametrize(
    ("was", "now", "is_worse"),
    [
        ((0.18, 0.44), (0.09, 0.17), True),
        ((0.18, 0.44), (0.09, 0.3), False),
        ((0.18, 0.44), (0.5, 0.9), False),
        ((0.18, 0.44), (0.2, 0.3), False),
    ],
)
def test_old_results_are_compared_by_their_intervals(was, now, is_worse):
    assert useful(old_entry(*was), old_entry(*now)).worse is is_worse
    assert useful(old_entry(*was), entry(1, useful_quantiles=posterior(now[1], 0.05))).worse is is_worse
    difference = compare(result(qk=old_entry(*was)), result(qk=entry(1)), tolerance=1, confidence=0.98)[0]
    assert "not compared" in difference.stable.why
    assert stable_edge(old_entry(*was)).posterior(LADDER) is None


@given(LOSSES, st.data())
@settings(deadline=None, derandomize=True)
def test_intervals_are_those_of_student_and_of_welch(old, data):
    new = data.draw(st.lists(NATS, min_size=len(old), max_size=len(old)))
    others = data.draw(LOSSES)
    assume(all(max(its) - min(its) > 0.01 for its in (old, others)))
    differences = [b - a for a, b in zip(old, new, strict=True)]
    assume(max(differences) - min(differences) > 0.01)
    expected = stats.ttest_rel(new, old).confidence_interval(CONFIDENCE)
    assert paired_interval(differences, CONFIDENCE) == pytest.approx(tuple(expected))
    expected = stats.ttest_ind(others, old, equal_var=False).confidence_interval(CONFIDENCE)
    assert welch_interval(old, others, CONFIDENCE) == pytest.approx(tuple(expected))


def test_seeds_are_paired_where_they_are_the_same():
    # Seeds that differ by half a nat each rise by a tenth: only side by side does it show.
    before = {"0": 4.0, "1": 4.5, "2": 5.0}
    after = {"0": 4.1, "1": 4.61, "2": 5.09}
    assert loss(entry(1, before), entry(1, after)).worse
    assert loss(entry(1, before), entry(1, after)).why == "at 0.2, seeds paired"
    other = {str(int(seed) + 1): its for seed, its in after.items()}
    assert not loss(entry(1, before), entry(1, other)).worse


@pytest.mark.parametrize(
    ("was", "now"), [(1, 2), (2, 1), (ABOVE, 1), (1, ABOVE), (ABOVE, ABOVE), (BELOW, 1), (1, 1)]
)
def test_at_different_rungs_or_with_one_seed_the_lowest_losses_are_compared_and_it_is_said(was, now):
    # At the edges themselves 5 against 4 would be worse by far.
    before = entry(was, {"0": 4.0}, best_val_loss=3.9, best_lr=0.05)
    for best, is_worse in ((3.9 + TOLERANCE - 0.01, False), (3.9 + TOLERANCE + 0.01, True)):
        found = loss(before, entry(now, {"0": 5.0}, best_val_loss=best))
        assert found.worse is is_worse
        assert (found.before, found.now) == (3.9, best)
        assert "lowest losses" in found.why


def test_a_loss_that_is_gone_is_worse():
    assert loss(entry(1, {"0": 4.0}), entry(1)).worse
    assert loss(entry(2, {"0": 4.0}), entry(1)).worse
    assert not loss(entry(1), entry(1)).worse
    assert not loss(entry(1), entry(1, {"0": 9.0})).worse


def test_a_variant_that_the_baseline_lacks_is_held_against_nothing():
    assert worse(result(qk=entry(1)), result(qk=entry(1), qkv=entry(-1))) == set()


def test_a_worse_variant_is_not_hidden_by_a_better_one():
    before = result(qk=entry(1, {"0": 4.0}), qkv=entry(1, {"0": 4.0}))
    after = result(qk=entry(ABOVE, {"0": 3.0}), qkv=entry(1, {"0": 4.5}))
    assert worse(before, after) == {"qkv"}
