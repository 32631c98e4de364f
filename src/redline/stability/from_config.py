"""The rules that `conf/divergence/` names, and the forecaster beside them."""

from collections.abc import Mapping
from typing import Any

from redline.errors import UserError
from redline.parts import Kind, find_part, subclass_of
from redline.stability.forecast import Forecaster
from redline.stability.rules import EndRule, OnlineRule

MODES = ("off", "warn", "end")
_FORECAST_KEYS = ("forecast", "forecaster")
_RULE = Kind(
    "a subclass of redline.stability.OnlineRule or EndRule",
    subclass_of(OnlineRule, EndRule),
)
_FORECASTER = Kind("a subclass of redline.stability.Forecaster", subclass_of(Forecaster))


def rule_specs(divergence: Mapping[Any, Any]) -> dict[str, Any]:
    """The part of `divergence` that `build_rules` reads."""
    return {str(name): spec for name, spec in divergence.items() if name not in _FORECAST_KEYS}


def rules_of_length(specs: Mapping[str, Any], max_steps: int) -> dict[str, Any]:
    """The same rules for a run of so many steps: those that take ``max_steps`` get it."""
    return {
        name: {**spec, "max_steps": max_steps} if spec is not None and "max_steps" in spec else spec
        for name, spec in specs.items()
    }


def build_rules(specs: Mapping[Any, Any], kind: type) -> dict[str, Any]:
    """The rules of a configuration that are of this ``kind``, by name. Raises UserError."""
    rules = {
        name: find_part(f"divergence.{name}", spec, _RULE)()
        for name, spec in rule_specs(specs).items()
        if spec is not None
    }
    return {name: rule for name, rule in rules.items() if isinstance(rule, kind)}


def build_forecaster(specs: Mapping[Any, Any]) -> tuple[str, Forecaster | None]:
    """What a warning does, ``off``, ``warn`` or ``end``, and the forecaster; None for ``off``.

    Raises UserError.
    """
    mode = "off" if specs["forecast"] is False else specs["forecast"]  # YAML reads a bare off as false
    if mode not in MODES:
        raise UserError(f"divergence.forecast={mode}: allowed: {', '.join(MODES)}")
    if mode == "off":
        return mode, None
    return mode, find_part("divergence.forecaster", specs["forecaster"], _FORECASTER)()
