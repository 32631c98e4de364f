"""Gives an optimizer of the user's own another learning rate, whatever schedule it has."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from redline.errors import UserError

_RATES = ("lr", "initial_lr", "max_lr")  # of a group: now, a schedule's base, a one-cycle schedule's peak


class ScaledLR(Callback):
    """Multiplies every group's LR by one factor while a step is taken, such that the largest is ``lr``.

    A schedule reads and writes the module's own numbers, so it need not be known; checkpoints hold those too.
    """

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        peak = max((_peak(group) for its in trainer.optimizers for group in its.param_groups), default=0.0)
        if peak == 0:
            raise UserError(
                "task.lr_argument=groups: no optimizer of task.module has a learning rate above 0; allowed: "
                "an argument of the module"
            )
        for optimizer in trainer.optimizers:
            _scale(optimizer, self.lr / peak)


def _peak(group: dict[str, Any]) -> float:
    return max((float(group[name]) for name in _RATES if name in group), default=0.0)


def _scale(optimizer: Optimizer, factor: float) -> None:
    own: list[Any] = []

    def before(optimizer: Optimizer, *_: Any) -> None:
        own[:] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor

    def after(optimizer: Optimizer, *_: Any) -> None:
        for group, lr in zip(optimizer.param_groups, own, strict=True):
            group["lr"] = lr

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
