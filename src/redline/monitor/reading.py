"""What the taps saw of one step, on its way from the device."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from redline import over_ranks
from redline.monitor.tap import Across, Tap


class Reading:
    """Takes what ``taps`` hold and leaves them empty; ``tensors`` is what has to be fetched, of all ranks."""

    def __init__(self, taps: Iterable[Tap]) -> None:
        self._values: dict[str, Tensor | float] = {}
        self._arrays: dict[str, Tensor | np.ndarray] = {}
        across: dict[str, Across] = {}
        for tap in taps:
            self._values |= tap.values
            self._arrays |= tap.arrays
            across |= {name: tap.across_ranks(name) for name in (*tap.values, *tap.arrays)}
            tap.values.clear()
            tap.arrays.clear()
        held = {**self._values, **self._arrays}
        tensors = {name: one for name, one in held.items() if isinstance(one, Tensor)}
        self.tensors = [*tensors.values()]
        if over_ranks.size() > 1:
            self.tensors = _of_all_ranks(self.tensors, [across[name] for name in tensors])

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


def _of_all_ranks(tensors: Sequence[Tensor], across: Sequence[Across]) -> list[Tensor]:
    """In two messages, whatever there is to be read."""
    rows = [
        (its.square() if how == "root_mean_square" else its).detach().float().reshape(-1)
        for its, how in zip(tensors, across, strict=True)
    ]
    sizes, row_N = [its.numel() for its in rows], torch.cat(rows)
    [mean_N], max_N = over_ranks.means([row_N]), over_ranks.largest(row_N)
    parts = zip(across, mean_N.split(sizes), max_N.split(sizes), tensors, strict=True)
    return [_chosen(how, mean, largest).reshape(its.shape) for how, mean, largest, its in parts]


def _chosen(how: Across, mean: Tensor, largest: Tensor) -> Tensor:
    if how == "max":
        return largest
    if how == "sum":
        return mean * over_ranks.size()
    return mean.sqrt() if how == "root_mean_square" else mean
