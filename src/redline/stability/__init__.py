"""When a run counts as diverged, and how sensitive a variant is to its learning rate. Pure numbers."""

from redline.stability.from_config import build_rules
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
    "NoLearning",
    "NoReturn",
    "NonFinite",
    "OnlineRule",
    "Outcome",
    "SearchRule",
    "Verdict",
    "build_rules",
    "judge_curve",
]
