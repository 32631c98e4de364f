"""Optimizers that `conf/optimizer/` chooses from: functions from parameters and peak LR."""

from collections.abc import Callable, Iterable
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import nn
from torch.optim import AdamW, Optimizer

from redline.bounds import Epsilon, Kept

_WEIGHT = 1e18  # so large that what an optimizer adds to its decay is rounded away


def adamw(
    parameters: Iterable[nn.Parameter],
    lr: float,
    *,
    betas: tuple[Kept, Kept],
    eps: Epsilon,
    weight_decay: Annotated[float, Ge(0), Le(1000)],
    independent: bool,
) -> AdamW:
    """AdamW; matrices decay, gains and biases do not.

    ``independent`` makes the decay at the peak LR equal to ``weight_decay`` itself, whatever the
    peak (Wortsman et al. 2023, section 3.2), where torch's own takes lr * weight_decay a step.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in parameters:
        (matrices if parameter.ndim >= 2 else others).append(parameter)
    decay = weight_decay / lr if independent else weight_decay
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    fused = matrices[0].device.type in ("cpu", "cuda")
    return AdamW(
        [group for group in groups if group["params"]],
        lr=lr,
        betas=(betas[0], betas[1]),
        eps=eps,
        fused=fused,
    )


def decay_shares(optimizer: Callable[[Iterable[nn.Parameter], float], Optimizer]) -> tuple[float, float]:
    """Two numbers a and b: a step at the peak LR takes the share ``a * lr + b`` off a matrix's weights.

    Measured at two LRs on a weight without a gradient, so that it holds for any optimizer; zeros for one of
    the user's own that does not take such a weight.
    """
    try:
        at_1, at_2 = (_share_taken(optimizer, lr) for lr in (1.0, 2.0))
    # It is only told to readers: no search is to end for it.
    except Exception:  # noqa: BLE001
        return 0.0, 0.0
    coupled = round(at_2 - at_1, 12)
    return coupled, round(at_1 - coupled, 12)


def _share_taken(optimizer: Callable[[Iterable[nn.Parameter], float], Optimizer], lr: float) -> float:
    weight = nn.Parameter(torch.full((1, 1), _WEIGHT, dtype=torch.float64, device="cpu"))
    weight.grad = torch.zeros_like(weight)
    optimizer([weight], lr).step()
    return 1 - weight.item() / _WEIGHT
