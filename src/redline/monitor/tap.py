"""What every tap is: it looks at the model on the steps that are read, and costs nothing on others."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from redline.model import MappedModel, recomputing

Across = Literal["mean", "root_mean_square", "max", "sum"]


@dataclass(frozen=True)
class Step:
    """The step that is being read."""

    number: int  # optimizer steps taken before it
    tokens: int  # that it predicts, on all ranks
    optimizer: Optimizer


class Tap:
    """While ``active``, writes what it measures in a step into ``values`` and ``arrays``.

    ``values`` maps a metric's name to a scalar on the device, or to a number that the host has anyway;
    ``arrays`` maps one to an array, such as a histogram. The monitor fetches all at once, so a tap never
    waits for the device: no ``.item()``, no ``if`` on a tensor. It must not change what the model computes.
    """

    every: int | None = None  # steps between two readings; None: as the monitor
    across: Across = "mean"  # see `across_ranks`

    def __init__(self) -> None:
        self._active = False
        self.values: dict[str, Tensor | float] = {}
        self.arrays: dict[str, Tensor | np.ndarray] = {}

    @property
    def active(self) -> bool:
        """Whether a hook is to look; never where a block is computed a second time for the backward pass."""
        return self._active and not recomputing()

    @active.setter
    def active(self, active: bool) -> None:
        self._active = active

    def attach(self, model: MappedModel) -> None:
        """Add hooks to the model, which is on its device and has not computed anything yet."""

    def across_ranks(self, name: str) -> Across:
        """How what each rank has of its share of a batch becomes the whole batch's; of what all have, such as
        a weight's norm, the mean is the same. Numbers of the host are left as they are.
        """
        return self.across

    def before_update(self, step: Step) -> None:
        """On a step that is read: the gradients are there, not clipped yet, and the weights as they were."""

    def after_update(self, step: Step) -> None:
        """On a step that is read: the optimizer has changed the weights."""
