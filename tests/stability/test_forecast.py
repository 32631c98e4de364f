"""The forecaster on curves written out here, a reading every ten steps."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.errors import UserError
from redline.stability import Forecaster, build_forecaster

NAN, INF = math.nan, math.inf
VALUES = st.floats(0.0, 1e5) | st.sampled_from([NAN, INF, 0.0])
CURVES = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20)


def forecaster(max_logit=1000.0, output_gain=100.0, warmup_steps=0, ramp=3):
    return Forecaster(max_logit=max_logit, output_gain=output_gain, warmup_steps=warmup_steps, ramp=ramp)


def warned(its, values, name="max_logit"):
    """The warnings, one reading every ten steps."""
    found = [its.read(10 * index, {name: value}) for index, value in enumerate(values)]
    return [forecast for forecast in found if forecast is not None]


def steps(*args):
    return [forecast.step for forecast in warned(*args)]


def test_growth_past_its_limit_warns_once():
    assert steps(forecaster(), [10, 1020, 1021, 5000, 10, 5000]) == [20]
    assert steps(forecaster(), [10, 121, 119], "output_gain") == [10]


def test_until_the_ramps_end_the_limit_grows_with_the_sum_of_the_learning_rates():
    its = forecaster(warmup_steps=20, ramp=3)
    # In peak LRs: 0 to 10 over the warm-up's 20 steps, then one a step to 50 after 60 steps.
    shares = {0: 0.0, 10: 2.5 / 50, 20: 10 / 50, 40: 30 / 50, 60: 1.0, 100: 1.0}
    assert {step: its.share(step) for step in shares} == pytest.approx(shares)
    for step, share in shares.items():
        if step:
            its = forecaster(warmup_steps=20, ramp=3)
            assert its.read(0, {"max_logit": 3.0}) is None
            assert its.read(step, {"max_logit": 5.9 + 1000 * share}) is None
            assert its.read(step, {"max_logit": 6.1 + 1000 * share}) is not None


@pytest.mark.parametrize("first", [3.7, 0.1, -2.0])
def test_at_the_start_of_a_long_warm_up_the_difference_between_two_batches_is_no_growth(first):
    its = forecaster(warmup_steps=2000)
    assert its.read(0, {"max_logit": first}) is None
    for step in range(1, 10):
        assert its.read(step, {"max_logit": first + 0.9 * abs(first)}) is None


@pytest.mark.parametrize(("warmup_steps", "ramp"), [(0, 3), (20, 0)])
def test_without_a_ramp_limits_are_whole_at_once(warmup_steps, ramp):
    assert {forecaster(warmup_steps=warmup_steps, ramp=ramp).share(step) for step in (0, 1, 50)} == {1.0}


@pytest.mark.parametrize("name", ["max_logit", "output_gain"])
def test_the_reason_names_the_reading_and_its_limit(name):
    [forecast] = warned(forecaster(max_logit=50.0, output_gain=50.0), [10, 71], name)
    assert (forecast.step, forecast.reason) == (10, f"{name} 71, allowed 70")


@pytest.mark.parametrize(
    "values", [[900] * 9, [5000] * 2, [1, 1001], [0] * 9, [900 * 0.9**n for n in range(9)], [-5000]]
)
def test_a_curve_that_stays_at_its_limit_or_below_does_not(values):
    assert steps(forecaster(), values) == []


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_reading_that_is_not_finite_warns(bad):
    assert steps(forecaster(), [1, bad, 1]) == [10]
    assert steps(forecaster(), [bad]) == [0]
    assert steps(forecaster(max_logit=INF), [1, bad]) == [10]


def test_a_limit_that_is_off_and_a_reading_that_is_not_there():
    assert steps(forecaster(max_logit=None), [NAN, INF, 1e9]) == []
    assert forecaster().read(0, {}) is None
    assert forecaster().read(0, {"something": NAN}) is None


def test_either_reading_warns_and_only_the_first():
    its = forecaster()
    assert its.read(0, {"max_logit": 5.0, "output_gain": 1.0}) is None
    assert its.read(10, {"max_logit": 5.0, "output_gain": 103.0}) is not None
    assert its.read(20, {"max_logit": 5000.0, "output_gain": 103.0}) is None


@given(CURVES, st.data())
@settings(deadline=None, derandomize=True)
def test_a_curve_read_in_two_parts_gives_the_forecast_of_the_whole(curve, data):
    split = data.draw(st.integers(0, len(curve)))
    whole, parts = forecaster(), forecaster()
    for index, (logit, gain) in enumerate(curve):
        if index == split:
            stored = json.loads(json.dumps(parts.state_dict()))
            parts = forecaster()
            parts.load_state_dict(stored)
        readings = {"max_logit": logit, "output_gain": gain}
        assert parts.read(5 * index, readings) == whole.read(5 * index, readings)
    assert parts.forecast == whole.forecast


@given(CURVES, st.floats(1.0, 1e5))
@settings(deadline=None, derandomize=True)
def test_the_warning_is_of_the_first_reading_that_passes(curve, limit):
    logits = [logit for logit, _ in curve]
    allowed = 2 * logits[0] + limit
    passed = [10 * n for n, its in enumerate(logits) if not (math.isfinite(its) and its <= allowed)]
    assert steps(forecaster(max_logit=limit), logits) == passed[:1]


@pytest.mark.parametrize(
    ("name", "bad"), [("max_logit", 0.0), ("max_logit", NAN), ("output_gain", -1.0), ("ramp", -1)]
)
def test_what_makes_no_sense_is_refused(composed, name, bad):
    divergence = composed(f"divergence.forecaster.{name}={bad}").divergence
    with pytest.raises(UserError, match=rf"^divergence\.forecaster\.{name}=.*: allowed: "):
        build_forecaster(divergence)


@pytest.mark.parametrize("mode", ["off", "warn", "end"])
def test_the_configuration_says_what_a_warning_does(composed, mode):
    found, its = build_forecaster(composed(f"divergence.forecast={mode}").divergence)
    assert found == mode
    assert (its is None) == (mode == "off")


def test_a_bare_off_of_yaml_is_off_and_anything_else_a_mistake(composed):
    cfg = composed()
    assert build_forecaster(cfg.divergence)[0] == "warn"
    cfg.divergence.forecast = False
    assert build_forecaster(cfg.divergence) == ("off", None)
    for bad in ("on", True, None, 3):
        cfg.divergence.forecast = bad
        with pytest.raises(UserError, match=r"divergence\.forecast=.*allowed: off, warn, end"):
            build_forecaster(cfg.divergence)


def test_the_keys_reach_the_forecaster(composed):
    keys = ["divergence.forecaster.max_logit=5", "divergence.forecaster.output_gain=null"]
    _, its = build_forecaster(composed(*keys).divergence)
    assert its.limits == {"max_logit": 5, "output_gain": None}
