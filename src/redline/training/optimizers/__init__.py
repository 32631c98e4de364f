"""Optimizers: the kinds that `conf/optimizer/` chooses from, and groups of parameters by role and name."""

from redline.training.optimizers.groups import MakeOptimizer, check_patterns, optimizer_from
from redline.training.optimizers.kinds import (
    adafactor,
    adamw,
    lion,
    muon,
    rmsprop,
    schedule_free,
    sgd,
    spam,
    stable_adamw,
    stable_spam,
)
from redline.training.optimizers.shares import decay_shares

__all__ = [
    "MakeOptimizer",
    "adafactor",
    "adamw",
    "check_patterns",
    "decay_shares",
    "lion",
    "muon",
    "optimizer_from",
    "rmsprop",
    "schedule_free",
    "sgd",
    "spam",
    "stable_adamw",
    "stable_spam",
]
