"""What `conf/divergence/` names is what is judged."""

import pytest

from redline.stability import (
    BlowUp,
    EndRule,
    NoLearning,
    NonFinite,
    NoReturn,
    OnlineRule,
    build_rules,
)


def kinds(cfg, kind):
    return {name: type(rule) for name, rule in build_rules(cfg.divergence, kind).items()}


def test_each_of_the_rules_is_judged_at_its_moment(composed):
    cfg = composed()
    assert kinds(cfg, OnlineRule) == {"non_finite": NonFinite, "blow_up": BlowUp, "no_return": NoReturn}
    assert kinds(cfg, EndRule) == {"no_learning": NoLearning}


@pytest.mark.parametrize("name", ["non_finite", "blow_up", "no_return", "no_learning"])
def test_a_rule_set_to_null_is_off(composed, name):
    on = {name for kind in (OnlineRule, EndRule) for name in kinds(composed(), kind)}
    cfg = composed(f"divergence.{name}=null")
    off = {name for kind in (OnlineRule, EndRule) for name in kinds(cfg, kind)}
    assert on - off == {name}


def test_the_keys_reach_the_rules(composed):
    cfg = composed(
        "schedule.warmup_steps=7", "trainer.max_steps=300", "divergence.blow_up.patience=0.25",
        "divergence.no_return.rise=0.5", "divergence.no_return.patience=1",
        "divergence.no_return.smoothing=0.25",
    )  # fmt: skip
    online = build_rules(cfg.divergence, OnlineRule)
    rule = online["blow_up"]
    assert (rule.warmup_steps, rule.patience, rule.max_steps) == (7, 0.25, 300)
    rule = online["no_return"]
    assert (rule.rise, rule.patience, rule.mean.smoothing, rule.max_steps) == (0.5, 1, 0.25, 300)
