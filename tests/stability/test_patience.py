"""Patience is a share of a run's length: a verdict means the same after 200 steps and after 20,000."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judge import judge_curve
from redline.stability import BlowUp, NoReturn, OnlineRule, build_rules

STEPS = 200
RECORDED = Path(__file__).parents[2] / "bench" / "forecast_curves.npz"


def judged(rules, losses):
    return judge_curve(rules, losses, [1.0] * len(losses))


@st.composite
def curves(draw):
    """From a loss of 5: levels that each last some of the 200 steps."""
    losses = [5.0]
    while len(losses) < STEPS:
        losses += [draw(st.sampled_from([1.0, 1.5, 3.0, 4.9, 5.1, 9.0]))] * draw(st.integers(1, 90))
    return losses[:STEPS]


@given(curves(), st.sampled_from([2, 100]))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_a_stretched_curve_gets_the_same_verdict_at_the_same_share_of_the_run(losses, times):
    def rules(times):
        return {
            "blow_up": BlowUp(10 * times, 0.2, smoothing=0.0, max_steps=STEPS * times),
            "no_return": NoReturn(1.0, 0.4, smoothing=0.0, max_steps=STEPS * times),
        }

    short = judged(rules(1), losses)
    long = judged(rules(times), [loss for loss in losses for _ in range(times)])
    assert (long is None) == (short is None)
    if short is not None and long is not None:
        assert (long.reason, long.step // times) == (short.reason, short.step)


def learns(share):
    return 2 + 3 * math.exp(-10 * share)


@pytest.mark.parametrize(
    ("curve", "reason", "share"),
    [
        (learns, None, None),
        # Up for good at 0.3 of the run, from a loss near 2.
        (lambda share: learns(share) + 8 * (share > 0.3), "blow_up", 0.5),
        (lambda share: learns(share) + 2 * (share > 0.3), "no_return", 0.7),
        (lambda share: learns(share) + 2 * (share > 0.7), "no_return", 1.0),
        (lambda share: learns(share) + 8 * (0.3 < share < 0.45), None, None),
        (lambda share: learns(share) + 2 * (0.3 < share < 0.65), None, None),
    ],
)
@pytest.mark.parametrize("max_steps", [STEPS, 100 * STEPS])
def test_the_default_rules_judge_by_the_share_of_the_run(composed, max_steps, curve, reason, share):
    cfg = composed(f"trainer.max_steps={max_steps}", f"schedule.warmup_steps={max_steps // 10}")
    rules = build_rules(cfg.divergence, OnlineRule)
    verdict = judged(rules, [curve(step / max_steps) for step in range(max_steps)])
    assert (verdict and verdict.reason) == reason
    if share is not None:
        # Smoothing is told in steps, for what it smooths is a batch's: it delays a verdict by some.
        assert share - 0.01 <= verdict.step / max_steps <= share + 9 / max_steps


def test_runs_that_were_recorded_at_250_steps_keep_their_verdicts(composed):
    cfg = composed("trainer.max_steps=250")
    with np.load(RECORDED) as recorded:
        runs = [recorded[name] for name in ("loss", "grad_norm", "reason", "step")]
    for loss, grad_norm, reason, step in zip(*runs, strict=True):
        seen = np.isfinite(loss)  # a run that ended early is filled up
        rules = build_rules(cfg.divergence, OnlineRule)
        verdict = judge_curve(rules, loss[seen].tolist(), grad_norm[seen].tolist())
        assert (verdict.reason if verdict else "") == reason
        assert verdict is None or verdict.step == step


def always_above(max_steps, reports):
    """The step at which a loss above the first one has blown up."""
    rule = BlowUp(0, 0.2, smoothing=0.0, max_steps=max_steps)
    return judged({"rule": rule}, [5.0] * reports[0] + [6.0] * reports[1]).step


def test_where_the_length_is_not_known_it_is_a_share_of_the_steps_so_far_and_at_least_fifty():
    assert always_above(None, (1, 1000)) == 50
    assert always_above(None, (100, 1000)) == 149
    # Above since step 400: a fifth of 500 steps are a hundred.
    assert always_above(None, (400, 1000)) == 499
    assert always_above(1000, (1, 1000)) == 200
    assert always_above(2, (1, 1)) == 1
