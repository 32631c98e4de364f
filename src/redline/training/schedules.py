"""Learning-rate schedules: the share of the peak LR at a step. All begin with a linear warm-up."""

import math

from redline.bounds import Share, Steps


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
