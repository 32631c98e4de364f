"""What every tap is: hooks on the model that cost nothing until a step is to be read."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class Tap(ABC):
    """Hooks that, while ``active``, leave scalars on the device in ``values``."""

    def __init__(self) -> None:
        self.active = False
        self.values: dict[str, Tensor] = {}

    @abstractmethod
    def attach(self, blocks: Sequence[nn.Module]) -> None:
        """Hang the hooks on the model's blocks; before any compilation, which ignores later ones."""
