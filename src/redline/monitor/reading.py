"""What the taps saw of one step, on its way from the device."""

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from redline.monitor.tap import Tap


class Reading:
    """Takes what ``taps`` hold and leaves them empty; ``tensors`` is what has to be fetched."""

    def __init__(self, taps: Iterable[Tap]) -> None:
        self._values: dict[str, Tensor | float] = {}
        self._arrays: dict[str, Tensor | np.ndarray] = {}
        for tap in taps:
            self._values |= tap.values
            self._arrays |= tap.arrays
            tap.values.clear()
            tap.arrays.clear()
        held = [*self._values.values(), *self._arrays.values()]
        self.tensors = [one for one in held if isinstance(one, Tensor)]

    def unpack(self, numbers: Sequence[float]) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Metrics and arrays, by name, from the numbers of ``tensors`` in one row."""
        rest = iter(numbers)
        values = {
            name: next(rest) if isinstance(value, Tensor) else value for name, value in self._values.items()
        }
        arrays = {
            name: np.array([next(rest) for _ in range(array.numel())], np.float32).reshape(array.shape)
            if isinstance(array, Tensor)
            else array
            for name, array in self._arrays.items()
        }
        return values, arrays
