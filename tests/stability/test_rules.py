"""Each rule on curves written out here. Losses in nats; without smoothing, so that steps can be counted.

Patience is told in steps, of runs that are to have a hundred.
"""

import json
import math
from dataclasses import asdict, replace

import pytest

from judge import judge_curve
from redline.stability import BlowUp, Cut, NoLearning, NonFinite, NoReturn, Outcome, Verdict

NAN, INF = math.nan, math.inf


def judged(rules, losses, grad_norms=None):
    return judge_curve(rules, losses, grad_norms or [1.0] * len(losses))


def blow_up(warmup_steps=2, patience=3, smoothing=0.0):
    return BlowUp(warmup_steps, patience / 100, smoothing, max_steps=100)


def no_return(rise=1.0, patience=3, smoothing=0.0):
    return NoReturn(rise, patience / 100, smoothing, max_steps=100)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_one_value_that_is_not_finite_is_divergence_at_its_step(bad):
    assert judged({"rule": NonFinite()}, [5.0, 4.0, bad, 4.0]) == Verdict("rule", 2)
    assert judged({"rule": NonFinite()}, [5.0, 4.0, 4.0], [1.0, bad, 1.0]) == Verdict("rule", 1)


def test_large_but_finite_values_are_not():
    assert judged({"rule": NonFinite()}, [1e30, 1e30], [1e30, 0.0]) is None


def test_a_loss_above_the_initial_one_for_patience_steps_blew_up():
    assert judged({"rule": blow_up()}, [5, 4, 4, 6, 6, 6, 6]) == Verdict("rule", 5)


def test_a_loss_that_comes_back_in_time_did_not_blow_up():
    assert judged({"rule": blow_up()}, [5, 4, 6, 6, 4, 6, 6, 5, 6, 6, 4]) is None


def test_steps_of_the_warm_up_do_not_count():
    losses = [5, 9, 9, 9, 9, 9, 4, 4]
    assert judged({"rule": blow_up(warmup_steps=6)}, losses) is None
    assert judged({"rule": blow_up(warmup_steps=4)}, losses) is None
    assert judged({"rule": blow_up(warmup_steps=3)}, losses) == Verdict("rule", 5)


def test_the_initial_loss_itself_is_not_above():
    assert judged({"rule": blow_up(warmup_steps=0, patience=1)}, [5, 5, 5]) is None


def test_blow_up_looks_at_the_smoothed_loss():
    # Means without bias: 5, 4.33, 4.71 (the spike is one step), 4.07; then 6 for good.
    losses = [5.0, 4.0, 5.0, 3.5, 6.0, 6.0, 6.0]
    mean, weight, means = 0.0, 0.0, []
    for loss in losses:
        mean, weight = 0.5 * mean + 0.5 * loss, 0.5 * weight + 0.5
        means.append(mean / weight)
    first_above = next(step for step, value in enumerate(means) if value > 5)
    assert judged({"rule": blow_up(patience=1, smoothing=0.5)}, losses) == Verdict("rule", first_above)
    assert first_above == 4


def test_a_spike_that_recovers_is_counted_and_is_no_divergence():
    rule = no_return()
    assert judged({"rule": rule}, [5, 3, 2, 4, 4, 4, 2, 2, 9, 2, 2]) is None
    assert rule.spikes == 2


def test_a_rise_that_has_not_come_back_patience_steps_later_is_divergence():
    rule = no_return()
    # Above the line 2 + 1 from step 3; three steps later, at step 6, still.
    assert judged({"rule": rule}, [5, 3, 2, 4, 4, 4, 4, 2, 2]) == Verdict("rule", 6)
    assert rule.spikes == 0


def test_a_rise_that_has_not_come_back_by_the_end_is_divergence():
    assert judged({"rule": no_return()}, [5, 3, 2, 2, 4]) == Verdict("rule", 4)
    assert judged({"rule": no_return()}, [5, 3, 2, 4, 2]) is None


def test_a_rise_is_measured_from_the_best_and_must_pass_the_line():
    assert judged({"rule": no_return(rise=1.0, patience=1)}, [5, 2, 3, 3, 3]) is None
    assert judged({"rule": no_return(rise=1.0, patience=1)}, [5, 2, 3.1, 3.1, 2]) == Verdict("rule", 3)


def test_a_slow_climb_is_a_rise_too():
    climb = [2 + 0.05 * step for step in range(60)]
    assert judged({"rule": no_return(patience=10)}, climb) == Verdict("rule", 31)


def test_no_return_looks_at_the_smoothed_loss():
    assert judged({"rule": no_return(smoothing=0.9)}, [2.0] * 30 + [8.0] + [2.0] * 30) is None
    # A tenth of 18 nats at once, and 1.8 * 0.9 ** n of it later: below 1 at the sixth step.
    losses = [2.0] * 60 + [20.0] + [2.0] * 30
    rule = no_return(smoothing=0.9, patience=6)
    assert judged({"rule": rule}, losses) is None
    assert rule.spikes == 1
    assert judged({"rule": no_return(smoothing=0.9, patience=5)}, losses) == Verdict("rule", 65)


def test_of_several_rules_the_first_to_break_gives_the_reason():
    rules = {"non_finite": NonFinite(), "blow_up": blow_up(), "no_return": no_return(patience=2)}
    assert judged(rules, [5, 3, 2, 4, 4, 4, 9, 9, NAN]) == Verdict("no_return", 5)


def test_a_quiet_curve_breaks_nothing():
    rules = {"non_finite": NonFinite(), "blow_up": blow_up(), "no_return": no_return()}
    assert judged(rules, [5 * 0.9**step + 1 for step in range(50)]) is None


@pytest.mark.parametrize(
    ("val_loss", "broken"), [(4.9, False), (5.0, True), (5.1, True), (INF, True), (NAN, True)]
)
def test_a_model_that_is_not_below_the_unigram_entropy_learned_nothing(val_loss, broken):
    assert NoLearning().broken_by(val_loss, unigram_entropy=5.0) is broken


def outcome(val_loss, lr=0.1):
    return Outcome(
        lr, seed=0, reason=None if val_loss is not None else "blow_up", step=9, optimizer_steps=10,
        val_loss=val_loss, initial_loss=6.0, train_loss=4.0, numbers={"perplexity": 55.0},
    )  # fmt: skip


@pytest.mark.parametrize("its", [outcome(4.0), replace(outcome(None), reason=None, cut=Cut(5.5, 0.25))])
def test_an_outcome_survives_as_plain_values(its):
    assert Outcome.from_dict(json.loads(json.dumps(asdict(its)))) == its


@pytest.mark.parametrize(
    ("floor", "initial_loss", "known"),
    [
        (5.5, 6.0, 5.5),
        (0.0, 6.0, 0.0),
        (None, 6.0, 6.0),
        (NAN, 6.0, 6.0),
        (None, INF, None),
        (None, NAN, None),
    ],
)
def test_where_no_floor_is_given_the_initial_loss_is_one(floor, initial_loss, known):
    assert replace(outcome(4.0), floor=floor, initial_loss=initial_loss).known_floor == known


def test_an_outcome_of_before_there_were_cuts_is_read():
    plain = asdict(outcome(4.0))
    del plain["cut"]
    assert Outcome.from_dict(plain) == outcome(4.0)
