"""What counts as worse."""

import math
from dataclasses import replace

import pytest
from gate_helpers import LADDER, NATS, RESULTS, entries, entry, result
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from redline.gate.compare import (
    compare,
    compare_loss,
    compare_lr,
    edge_interval,
    paired_interval,
    welch_interval,
)

TOLERANCE, CONFIDENCE = 0.15, 0.9
LOSSES = st.lists(NATS, min_size=2, max_size=5)


def worse(baseline, new):
    """The variants that got worse."""
    return {
        its.variant for its in compare(baseline, new, tolerance=TOLERANCE, confidence=CONFIDENCE) if its.worse
    }


def with_variant(its, name, **changed):
    """A result in which that variant is another."""
    return replace(its, variants={**its.variants, name: replace(its.variants[name], **changed)})


def lr(before, now):
    return compare_lr(before, now, LADDER)


def loss(before, now):
    return compare_loss(before, now, TOLERANCE, CONFIDENCE)


@given(RESULTS)
@settings(deadline=None, derandomize=True)
def test_nothing_is_worse_than_itself(its):
    assert worse(its, its) == set()


@given(RESULTS, st.data(), st.floats(0.01, 0.99))
@settings(deadline=None, derandomize=True)
def test_an_edge_below_the_baselines_interval_is_worse_in_that_variant_alone(its, data, share):
    name = data.draw(st.sampled_from(sorted(its.variants)))
    was = edge_interval(its.variants[name], LADDER)
    assume(was is not None and was[0] > 0)
    low, high = was[0] * share * 0.5, was[0] * share
    changed = {"max_stable_lr": low, "max_stable_lr_90": (low, high), "censored": None}
    assert worse(its, with_variant(its, name, **changed)) == {name}


@given(RESULTS, st.data(), st.floats(0.16, 3.0))
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
    assert not (lr(a, b).worse and lr(b, a).worse)
    assume(a.best_val_loss is not None and b.best_val_loss is not None)
    assert not (loss(a, b).worse and loss(b, a).worse)


@pytest.mark.parametrize(
    ("was", "now", "is_worse"),
    [
        ([0.18, 0.44], [0.09, 0.17], True),
        ([0.18, 0.44], [0.09, 0.18], False),  # they meet
        ([0.18, 0.44], [0.09, 0.3], False),
        ([0.18, 0.44], [0.5, 0.9], False),
        ([0.18, 0.44], [0.2, 0.3], False),
    ],
)
def test_edges_are_worse_where_their_intervals_do_not_meet(was, now, is_worse):
    before, after = (entry(1, max_stable_lr_90=interval) for interval in (was, now))
    assert lr(before, after).worse is is_worse


ABOVE, BELOW, OPEN = 3, -1, None


@pytest.mark.parametrize(
    ("was", "now", "is_worse"),
    [
        (ABOVE, ABOVE, False),
        (ABOVE, 2, False),  # 0.36 to 0.88: the edge may lie where the ladder ends
        (ABOVE, 1, True),
        (ABOVE, 0, True),
        (ABOVE, BELOW, True),
        (ABOVE, OPEN, True),
        (2, ABOVE, False),
        (0, BELOW, True),
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
    assert lr(entry(was), entry(now)).worse is is_worse


def test_before_there_were_intervals_a_result_had_its_bracket():
    old = entry(1, max_stable_lr_90=None)
    assert edge_interval(old, LADDER) == (0.2, 0.4)
    assert lr(old, entry(0, max_stable_lr_90=[0.1, 0.19])).worse
    assert not lr(old, entry(0, max_stable_lr_90=[0.1, 0.21])).worse


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
    assert loss(entry(1, before), entry(1, after)).why == "seeds paired"
    other = {str(int(seed) + 1): its for seed, its in after.items()}
    assert not loss(entry(1, before), entry(1, other)).worse


@pytest.mark.parametrize(("rise", "is_worse"), [(0.14, False), (0.16, True)])
@pytest.mark.parametrize("seeds", [("0", "01"), ("01", "0"), ("0", "0")])
def test_with_one_seed_the_tolerance_holds(rise, is_worse, seeds):
    before, after = (
        entry(1, dict.fromkeys(its, 4.0 + more)) for its, more in zip(seeds, (0.0, rise), strict=True)
    )
    assert loss(before, after).worse is is_worse


@pytest.mark.parametrize(("rise", "is_worse"), [(0.14, False), (0.16, True)])
def test_results_that_name_no_seeds_are_compared_by_their_mean(rise, is_worse):
    before = entry(1, {"0": 4.0, "1": 4.2}, val_losses={})
    assert loss(before, entry(1, {"0": 4.1 + rise - 0.05, "1": 4.1 + rise + 0.05})).worse is is_worse


@pytest.mark.parametrize(("was", "now"), [(1, 2), (2, 1), (ABOVE, 1), (1, ABOVE), (ABOVE, ABOVE), (BELOW, 1)])
def test_at_different_rates_the_lowest_losses_are_compared_and_it_is_said(was, now):
    # At the edges themselves 5 against 4 would be worse by far.
    before = entry(was, {"0": 4.0}, best_val_loss=3.9, best_lr=0.05)
    for best, is_worse in ((4.04, False), (4.06, True)):
        found = loss(before, entry(now, {"0": 5.0}, best_val_loss=best))
        assert found.worse is is_worse
        assert (found.before, found.now) == (3.9, best)
        assert "edges differ" in found.why or was == now


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
    assert math.isinf(lr(before.variants["qk"], after.variants["qk"]).interval[1])
