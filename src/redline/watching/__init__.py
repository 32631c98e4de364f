"""Watches a training loop that is not ours: what is measured in it, whether it has diverged, MLflow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redline.watching.watched import Watched

__all__ = ["watch"]


def watch(
    model: Any,
    optimizer: Any,
    *,
    name: str = "watched",
    max_steps: int | None = None,
    warmup_steps: int = 0,
    every: int = 10,
    divergence: Mapping[str, Any] | None = None,
    forecast: str = "warn",
    home: str | Path = "mlruns",
    loggers: Sequence[Any] | None = None,
) -> "Watched":
    """Watch a PyTorch loop: after each ``optimizer.step()`` it calls ``watched.step(loss)``.

    Every ``every`` steps the output norms of every Linear are read (of a model that has a site map those of
    its blocks, and the largest attention logit), at each step the loss and the gradient norm that the
    optimizer sees. They go to MLflow, in ``home``, as a run of the experiment ``name``; to ``loggers`` of
    Lightning's instead, where some are given. What breaks a rule is said once, and so is, for a model with a
    site map, that a run will probably diverge; ``forecast=off``: not that.

    ``max_steps``: of the run, where it is known: the rules' patience is a share of it. ``warmup_steps``: of
    the schedule. ``divergence``: as in `redline.find_edge`.

    Call it before the first forward, and before ``torch.compile``. Raises UserError.
    """
    from redline.watching.watched import watched

    return watched(
        model,
        optimizer,
        name,
        max_steps,
        warmup_steps,
        every,
        divergence or {},
        forecast,
        Path(home),
        loggers,
    )
