"""What weight decay takes off the weights."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from redline.model import Linear, Named

_WEIGHT = 1e18  # so large that what an optimizer adds to its decay is rounded away
_REFUSALS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def decay_shares(optimizer: Callable[[Sequence[Named], float], Optimizer]) -> tuple[float, float]:
    """Two numbers a and b: a step at the peak LR takes the share ``a * lr + b`` off a hidden matrix.

    Measured at two LRs on a weight without a gradient, so that it holds for any optimizer; zeros for one of
    the user's own that does not take such a weight, which is no reason to end a search.
    """
    try:
        at_1, at_2 = (_share_taken(optimizer, lr) for lr in (1.0, 2.0))
    except _REFUSALS:
        return 0.0, 0.0
    coupled = round(at_2 - at_1, 12)
    return coupled, round(at_1 - coupled, 12)


def _share_taken(optimizer: Callable[[Sequence[Named], float], Optimizer], lr: float) -> float:
    weight = nn.Parameter(torch.full((1, 1), _WEIGHT, dtype=torch.float64, device="cpu"))
    weight.grad = torch.zeros_like(weight)
    optimizer([Named("blocks.0.attention.qkv.weight", weight, "hidden", Linear.qkv, 0)], lr).step()
    return 1 - weight.item() / _WEIGHT
