"""What every tap is: it looks at the model on the steps that are read, and costs nothing on others."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from redline.model import MappedModel


@dataclass(frozen=True)
class Step:
    """The step that is being read."""

    number: int  # optimizer steps taken before it
    tokens: int  # that it predicts
    optimizer: Optimizer


class Tap:
    """While ``active``, writes what it measures in a step into ``values`` and ``arrays``.

    ``values`` maps a metric's name to a scalar on the device, or to a number that the host has anyway;
    ``arrays`` maps one to an array, such as a histogram. The monitor fetches all at once, so a tap never
    waits for the device: no ``.item()``, no ``if`` on a tensor. It must not change what the model computes.
    """

    every: int | None = None  # steps between two readings; None: as the monitor

    def __init__(self) -> None:
        self.active = False
        self.values: dict[str, Tensor | float] = {}
        self.arrays: dict[str, Tensor | np.ndarray] = {}

    def attach(self, model: MappedModel) -> None:
        """Add hooks to the model, which is on its device and has not computed anything yet."""

    def before_update(self, step: Step) -> None:
        """On a step that is read: the gradients are there, not clipped yet, and the weights as they were."""

    def after_update(self, step: Step) -> None:
        """On a step that is read: the optimizer has changed the weights."""
