"""When a run counts as diverged, and how sensitive a variant is to its learning rate. Pure numbers."""

from redline.stability.forecast import Forecast, Forecaster
from redline.stability.from_config import build_forecaster, build_rules
from redline.stability.outcome import Outcome
from redline.stability.rules import (
    BlowUp,
    Degraded,
    EndRule,
    NoLearning,
    NonFinite,
    NoReturn,
    OnlineRule,
    SearchRule,
)
from redline.stability.verdict import Verdict, judge_curve

__all__ = [
    "BlowUp",
    "Degraded",
    "EndRule",
    "Forecast",
    "Forecaster",
    "NoLearning",
    "NoReturn",
    "NonFinite",
    "OnlineRule",
    "Outcome",
    "SearchRule",
    "Verdict",
    "build_forecaster",
    "build_rules",
    "judge_curve",
]
