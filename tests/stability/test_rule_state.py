"""A run may stop anywhere and go on: its rules must judge as if it had not."""

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from judge import judge_curve
from redline.stability import BlowUp, NonFinite, NoReturn, Verdict

LOSSES = st.lists(
    st.floats(0.5, 12.0) | st.sampled_from([2.0, 9.0]) | st.sampled_from([math.nan, math.inf]),
    min_size=1,
    max_size=40,
)
SETTINGS = st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.integers(0, 6), st.integers(1, 6))


def fresh(smoothing, warmup_steps, patience, with_non_finite):
    rules = {
        "blow_up": BlowUp(warmup_steps, patience, smoothing),
        "no_return": NoReturn(1.0, patience, smoothing),
    }
    return {"non_finite": NonFinite(), **rules} if with_non_finite else rules


def judged_in_parts(make, losses, split):
    """As a run does it: the state at ``split`` goes through plain values into new rules."""
    rules = make()
    for step, loss in enumerate(losses):
        if step == split:
            stored = json.loads(json.dumps({name: rule.state_dict() for name, rule in rules.items()}))
            rules = make()
            for name, state in stored.items():
                rules[name].load_state_dict(state)
        for name, rule in rules.items():
            if rule.broken_by(step, loss, 1.0):
                return Verdict(name, step), rules
    for name, rule in rules.items():
        if rule.broken_at_end():
            return Verdict(name, len(losses) - 1), rules
    return None, rules


@given(LOSSES, SETTINGS, st.booleans(), st.data())
@settings(deadline=None, derandomize=True)
def test_a_curve_judged_in_two_parts_gets_the_verdict_of_the_whole(losses, chosen, with_non_finite, data):
    split = data.draw(st.integers(0, len(losses) - 1))

    def make():
        return fresh(*chosen, with_non_finite)

    whole_rules = make()
    whole = judge_curve(whole_rules, losses, [1.0] * len(losses))
    parts, part_rules = judged_in_parts(make, losses, split)
    assert parts == whole
    assert part_rules["no_return"].spikes == whole_rules["no_return"].spikes


@given(LOSSES, SETTINGS)
@settings(deadline=None, derandomize=True)
def test_a_state_is_a_copy_that_later_steps_leave_alone(losses, chosen):
    rules = fresh(*chosen, False)
    for name, rule in rules.items():
        state = rule.state_dict()
        before = json.dumps(state)
        for step, loss in enumerate(losses):
            rule.broken_by(step, loss, 1.0)
        assert json.dumps(state) == before, name
