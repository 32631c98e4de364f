"""The divergence rules, one a file; `conf/divergence/` names those that hold."""

from redline.stability.rules.base import EndRule, OnlineRule, SearchRule
from redline.stability.rules.blow_up import BlowUp
from redline.stability.rules.degraded import Degraded
from redline.stability.rules.no_learning import NoLearning
from redline.stability.rules.no_return import NoReturn
from redline.stability.rules.non_finite import NonFinite

__all__ = ["BlowUp", "Degraded", "EndRule", "NoLearning", "NoReturn", "NonFinite", "OnlineRule", "SearchRule"]
