"""When a run counts as diverged, and how sensitive a variant is to its learning rate. Pure numbers."""

from redline.stability.forecast import Forecaster
from redline.stability.from_config import build_forecaster, build_rules, rule_specs, rules_of_length
from redline.stability.outcome import Cut, Outcome, Score, Verdict
from redline.stability.rules import (
    BlowUp,
    EndRule,
    NoLearning,
    NonFinite,
    NoReturn,
    OnlineRule,
)
from redline.stability.watch import Progress, Watch
from redline.stability.windows import WINDOWS, Windows, window_ends

__all__ = [
    "WINDOWS",
    "BlowUp",
    "Cut",
    "EndRule",
    "Forecaster",
    "NoLearning",
    "NoReturn",
    "NonFinite",
    "OnlineRule",
    "Outcome",
    "Progress",
    "Score",
    "Verdict",
    "Watch",
    "Windows",
    "build_forecaster",
    "build_rules",
    "rule_specs",
    "rules_of_length",
    "window_ends",
]
