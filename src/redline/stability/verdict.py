"""Rules held against a whole curve."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from redline.stability.rules import OnlineRule


@dataclass(frozen=True)
class Verdict:
    """The rule that a run broke, and the step (counted from 0) at which it did."""

    reason: str
    step: int


def judge_curve(
    rules: dict[str, OnlineRule], losses: Sequence[float], grad_norms: Iterable[float]
) -> Verdict | None:
    """The verdict of fresh online ``rules`` on a recorded curve: one loss and gradient norm a step."""
    for step, (loss, grad_norm) in enumerate(zip(losses, grad_norms, strict=True)):
        for reason, rule in rules.items():
            if rule.broken_by(step, loss, grad_norm):
                return Verdict(reason, step)
    for reason, rule in rules.items():
        if rule.broken_at_end():
            return Verdict(reason, len(losses) - 1)
    return None
