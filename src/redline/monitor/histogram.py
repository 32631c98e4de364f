"""Counts over bins that are the same for every tensor at every step: one for each sign and power of two."""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

Power = Annotated[int, Ge(-126), Le(127)]  # of two, as far as fp32 goes
_NEARLY_ZERO = 1e-3


class Octaves:
    """``2 * (high - low)`` bins; their inner edges are -2**high … -2**(low+1), 0, 2**(low+1) … 2**high.

    What is smaller than 2**low in magnitude counts in the innermost bin of its sign, what is larger than
    2**high in the outermost; not-a-number counts nowhere. Of a tensor with more than ``values`` elements as
    many at most are counted, evenly spaced.
    """

    def __init__(self, low: int, high: int, values: int) -> None:
        if not low < high:
            raise ValueError(f"low={low}: allowed: below high={high}")
        self.low, self.reach, self.values = low, high - low, values

    def edges(self) -> np.ndarray:
        """(bins + 1,)"""
        positive = 2.0 ** np.arange(self.low + 1, self.low + self.reach + 1)
        return np.concatenate([-positive[::-1], [0.0], positive])

    def counts(self, x: Tensor) -> Tensor:
        """(bins,), fp32."""
        x_N = x.detach().flatten()
        x_N = x_N[:: -(-x_N.numel() // self.values)].float()
        # Not down to 0, which has lost its sign when bins are counted.
        octave_N = (x_N.abs().log2() - self.low).clamp(_NEARLY_ZERO, self.reach)
        signed_N = torch.copysign(octave_N, x_N)
        return torch.histc(signed_N, 2 * self.reach, -self.reach, self.reach)
