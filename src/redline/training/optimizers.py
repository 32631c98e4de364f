"""Optimizers that `conf/optimizer/` chooses from: functions from parameters and peak LR."""

from collections.abc import Iterable
from typing import Annotated

from annotated_types import Ge, Le
from torch import nn
from torch.optim import AdamW

from redline.bounds import Epsilon, Kept


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
