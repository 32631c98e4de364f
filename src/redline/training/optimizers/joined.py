"""Several optimizers as one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer


class Joined(Optimizer):
    """Steps them one after the other. Its groups are theirs, so that a scheduler sets the LR of all."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def train(self) -> None:
        switch_mode(self.optimizers, "train")

    def eval(self) -> None:
        switch_mode(self.optimizers, "eval")

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        # Loading makes new ones, and who holds the list must see them.
        self.param_groups[:] = self._groups()


def switch_mode(optimizers: Sequence[Optimizer], mode: str) -> None:
    """``train`` or ``eval``, for those that train other weights than they evaluate."""
    for optimizer in optimizers:
        if hasattr(optimizer, mode):
            getattr(optimizer, mode)()
