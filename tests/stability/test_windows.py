"""A run's loss in equal parts of its length, however many steps it has and however seldom it reports."""

import json
import math
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.stability import WINDOWS, NonFinite, Progress, Watch, window_ends

NAN, INF = math.nan, math.inf


def windows(losses, max_steps, every=1):
    """What the last message holds, after one report every so many steps."""
    told = []
    watch = Watch(tell=told.append, max_steps=max_steps)
    for step in range(0, len(losses), every):
        watch.report(step, losses[step])
    return told[-1].windows


@given(st.integers(1, 300), st.data())
@settings(deadline=None, derandomize=True)
def test_a_window_is_the_mean_of_its_steps_once_its_last_one_was_reported(max_steps, data):
    losses = data.draw(st.lists(st.floats(-10, 10), min_size=1, max_size=max_steps))
    count = min(WINDOWS, max_steps)
    of_window = [[] for _ in range(count)]
    for step in range(max_steps):
        of_window[step * count // max_steps].append(step)
    assert all(of_window)
    assert window_ends(max_steps) == tuple(steps[-1] for steps in of_window)
    complete = [steps for steps in of_window if steps[-1] < len(losses)]
    expected = [fmean(losses[step] for step in steps) for steps in complete]
    assert windows(losses, max_steps) == pytest.approx(expected, abs=1e-9)


def test_a_run_of_few_steps_has_a_window_for_each():
    assert windows([5.0, 4.0, 3.0], max_steps=4) == (5.0, 4.0, 3.0)


def test_a_window_without_a_report_repeats_the_one_before():
    # Two steps a window; steps 0, 5 and 10 are reported, in windows 0, 2 and 5.
    losses = list(range(100))
    assert windows(losses[:6], max_steps=100, every=5) == (0.0, 0.0, 5.0)
    assert windows(losses[:11], max_steps=100, every=5) == (0.0, 0.0, 5.0, 5.0, 5.0)


def test_windows_before_the_first_report_repeat_the_first_one_with_a_report():
    told = []
    watch = Watch(tell=told.append, max_steps=100)
    for step, loss in [(6, 3.0), (7, 1.0), (9, 7.0)]:
        watch.report(step, loss)
    assert [its.windows for its in told] == [(), (2.0,) * 4, (2.0, 2.0, 2.0, 2.0, 7.0)]


@given(st.integers(1, 200), st.sampled_from([1, 2, 7, 10, 60]))
@settings(deadline=None, derandomize=True)
def test_however_seldom_a_run_reports_all_windows_before_its_last_report_are_there(max_steps, every):
    its = windows([float(step) for step in range(max_steps)], max_steps, every)
    last = (max_steps - 1) // every * every
    assert len(its) == sum(end < last or end == last for end in window_ends(max_steps))
    assert list(its) == sorted(its)


@pytest.mark.parametrize("odd", [[NAN], [INF], [-INF, INF], [1e308, 1e308]])
def test_the_curve_ends_before_a_window_that_is_not_finite(odd):
    losses = [4.0] * 4 + odd + [4.0] * 20
    assert windows(losses, max_steps=100) == (4.0, 4.0)


def test_without_a_length_there_are_none():
    assert windows([4.0] * 100, max_steps=None) == window_ends(None) == ()


def test_steps_beyond_the_length_and_one_reported_twice_change_nothing():
    assert windows([4.0] * 100 + [9.0] * 50, max_steps=100) == (4.0,) * WINDOWS
    told = []
    watch = Watch(tell=told.append, max_steps=100)
    for step, loss in [(0, 4.0), (1, 4.0), (1, 9.0), (2, 2.0), (3, 2.0)]:
        watch.report(step, loss)
    assert told[-1].windows == (4.0, 2.0)


def test_a_message_holds_the_windows_up_to_its_step_also_when_a_rule_broke():
    told = []
    watch = Watch({"non_finite": NonFinite()}, told.append, max_steps=3)
    for loss in (4.0, 3.0, NAN):
        watch.report(len(told), loss)
    assert [its.windows for its in told] == [(4.0,), (4.0, 3.0), (4.0, 3.0)]
    assert told[0] == Progress(1, 4.0, windows=(4.0,))


@given(st.lists(st.floats(0, 9), min_size=2, max_size=80), st.data())
@settings(deadline=None, derandomize=True, max_examples=30)
def test_a_resumed_run_has_the_windows_of_one_that_never_stopped(tmp_path_factory, losses, data):
    """From a checkpoint's state, or from the file of its steps; back to some earlier step."""
    stop = data.draw(st.integers(1, len(losses) - 1))
    back = data.draw(st.integers(0, stop))
    whole = windows(losses, max_steps=80)
    curve = tmp_path_factory.mktemp("trial") / "curve.bin"
    before = Watch(curve=curve, max_steps=80)
    state = before.state_dict()
    for step in range(stop):
        if step == back:
            state = json.loads(json.dumps(before.state_dict()))
        before.report(step, losses[step])
    if back == stop:
        state = before.state_dict()
    by_state, by_file = Watch(max_steps=80), Watch(curve=curve, max_steps=80)
    by_state.load_state_dict(state)
    for watch in (by_state, by_file):
        for step in range(back, len(losses)):
            watch.report(step, losses[step])
        assert watch.windows.means == whole
