"""Learning-rate schedules: the share of the peak LR at a step. All begin with a linear warm-up.

They are functions of the step and the run's length, so that a run that ends early had the LRs of the whole.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from annotated_types import Ge, Le
from omegaconf import DictConfig

from redline.bounds import Count, Share, Steps
from redline.parts import Kind, find_part, has_parameters

_SCHEDULE = Kind(
    "a function of `step` and `max_steps`",
    has_parameters("step", "max_steps"),
    positional=1,
    named=("max_steps",),
)


def build_schedule(cfg: DictConfig) -> Callable[[int], float]:
    """From a step to the share of the peak LR."""
    return partial(find_part("schedule", cfg.schedule, _SCHEDULE), max_steps=cfg.trainer.max_steps)


def _warmup(step: int, warmup_steps: int) -> float | None:
    return (step + 1) / warmup_steps if step < warmup_steps else None


def _progress(step: int, warmup_steps: int, max_steps: int) -> float:
    """From 0 after warm-up to 1 at the last step."""
    return (step - warmup_steps) / max(1, max_steps - 1 - warmup_steps)


def cosine(step: int, *, max_steps: int, warmup_steps: Steps, final_fraction: Share) -> float:
    warmup = _warmup(step, warmup_steps)
    if warmup is not None:
        return warmup
    progress = _progress(step, warmup_steps, max_steps)
    return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * progress)) / 2


def linear(step: int, *, max_steps: int, warmup_steps: Steps, final_fraction: Share) -> float:
    warmup = _warmup(step, warmup_steps)
    if warmup is not None:
        return warmup
    return 1 - (1 - final_fraction) * _progress(step, warmup_steps, max_steps)


def constant(step: int, *, max_steps: int, warmup_steps: Steps, final_fraction: Share) -> float:
    return _warmup(step, warmup_steps) or 1.0


def inverse_sqrt(step: int, *, max_steps: int, warmup_steps: Steps) -> float:
    """1 / sqrt(step), from the end of the warm-up on (Vaswani et al. 2017, section 5.3)."""
    return _warmup(step, warmup_steps) or math.sqrt(max(1, warmup_steps) / (step + 1))


def wsd(
    step: int,
    *,
    max_steps: int,
    warmup_steps: Steps,
    decay_steps: Count,
    shape: Literal["linear", "sqrt"],
    final_fraction: Share,
) -> float:
    """The peak, then a decay over the last ``decay_steps``, or what the warm-up leaves of them (Hu et al.
    2024, arXiv 2404.06395). ``sqrt`` falls as 1 - sqrt(progress) (Haegele et al. 2024, arXiv 2405.18392).
    """
    warmup = _warmup(step, warmup_steps)
    if warmup is not None:
        return warmup
    progress = max(0.0, _progress(step, max(warmup_steps, max_steps - 1 - decay_steps), max_steps))
    return 1 - (1 - final_fraction) * (progress if shape == "linear" else math.sqrt(progress))


def cosine_restarts(
    step: int,
    *,
    max_steps: int,
    warmup_steps: Steps,
    period: Count,
    growth: Annotated[int, Ge(1), Le(1000)],
    final_fraction: Share,
) -> float:
    """A cosine of ``period`` steps, and again from the peak, each ``growth`` times as long as the one before
    (Loshchilov and Hutter 2017, arXiv 1608.03983).
    """
    warmup = _warmup(step, warmup_steps)
    if warmup is not None:
        return warmup
    since = step - warmup_steps
    while since >= period:
        since, period = since - period, period * growth
    return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * since / period)) / 2
