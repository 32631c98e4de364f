"""A recorded curve held against fresh rules."""

from collections.abc import Iterable, Mapping, Sequence

from redline.stability import OnlineRule, Score, Verdict, Watch


def judge_curve(
    rules: Mapping[str, OnlineRule], losses: Sequence[float], grad_norms: Iterable[float]
) -> Verdict | None:
    """The verdict on one loss and gradient norm a step, up to the end."""
    watch = Watch(rules)
    for step, (loss, grad_norm) in enumerate(zip(losses, grad_norms, strict=True)):
        if watch.report(step, loss, grad_norm):
            break
    outcome = watch.outcome(0.1, 0, Score(None), len(losses))
    return None if outcome.reason is None else Verdict(outcome.reason, outcome.step)
