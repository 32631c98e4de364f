"""A run may stop anywhere and go on: its rules must judge as if it had not."""

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from redline.stability import BlowUp, NonFinite, NoReturn, Score, Watch

LOSSES = st.lists(
    st.floats(0.5, 12.0) | st.sampled_from([2.0, 9.0]) | st.sampled_from([math.nan, math.inf]),
    min_size=1,
    max_size=40,
)
SETTINGS = st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.integers(0, 6), st.integers(1, 6))


def fresh(smoothing, warmup_steps, patience, with_non_finite):
    rules = {
        "blow_up": BlowUp(warmup_steps, patience / 40, smoothing, max_steps=40),
        "no_return": NoReturn(1.0, patience / 40, smoothing, max_steps=40),
    }
    return {"non_finite": NonFinite(), **rules} if with_non_finite else rules


def judged(make, losses, split=None):
    """As a run does it: at ``split`` the state goes through plain values into a new watch."""
    watch = Watch(make())
    for step, loss in enumerate(losses):
        if step == split:
            stored = json.loads(json.dumps(watch.state_dict()))
            watch = Watch(make())
            watch.load_state_dict(stored)
        if watch.report(step, loss, 1.0):
            break
    return repr(watch.outcome(0.1, 0, Score(None), None))  # NaN is not equal to itself


@given(LOSSES, SETTINGS, st.booleans(), st.data())
@settings(deadline=None, derandomize=True)
def test_a_curve_judged_in_two_parts_gets_the_outcome_of_the_whole(losses, chosen, with_non_finite, data):
    split = data.draw(st.integers(0, len(losses) - 1))

    def make():
        return fresh(*chosen, with_non_finite)

    assert judged(make, losses, split) == judged(make, losses)


@given(LOSSES, SETTINGS)
@settings(deadline=None, derandomize=True)
def test_a_state_is_a_copy_that_later_steps_leave_alone(losses, chosen):
    watch = Watch(fresh(*chosen, False))
    watch.report(0, 5.0)
    state = watch.state_dict()
    before = json.dumps(state)
    for step, loss in enumerate(losses, start=1):
        watch.report(step, loss, 1.0)
    assert json.dumps(state) == before
