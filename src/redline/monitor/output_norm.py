"""How large the activations are: the paper's curves, and the residual stream's."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from redline.errors import UserError
from redline.model import Transformer
from redline.monitor.sites import ACTIVATIONS, checked, on_activations
from redline.monitor.tap import Tap


def _mean_norm(norm_BT: Tensor, channels: int) -> Tensor:
    return norm_BT.mean()


def _rms(norm_BT: Tensor, channels: int) -> Tensor:
    return torch.linalg.vector_norm(norm_BT) / math.sqrt(norm_BT.numel() * channels)


_STATISTICS = {"norm": _mean_norm, "rms": _rms}


class OutputNorm(Tap):
    """``norm/<site>/layer_<l>``: the mean over tokens of the L2 norm over channels. ``rms/<site>/layer_<l>``:
    the root of the mean square over tokens and channels.

    Sites are the outputs of the linears ``qkv``, ``proj``, ``fc1``, ``fc2``; ``q``, ``k``, ``v`` apart, as
    the QKV linear gives them; ``block_in``, a block's input; ``residual``, the residual stream after a block.
    """

    def __init__(self, sites: Sequence[str], statistics: Sequence[str]) -> None:
        super().__init__()
        self.sites = checked(sites, ACTIVATIONS)
        for statistic in statistics:
            if statistic not in _STATISTICS:
                raise UserError(f"statistics={statistic}: allowed: {', '.join(_STATISTICS)}")
        self.statistics = list(statistics)

    def attach(self, model: Transformer) -> None:
        on_activations(self, model, self.sites, self._see)

    def _see(self, name: str, x_BTC: Tensor) -> None:
        # Both statistics come from one pass over the activations.
        norm_BT = torch.linalg.vector_norm(x_BTC, dim=-1, dtype=torch.float32)
        for statistic in self.statistics:
            self.values[f"{statistic}/{name}"] = _STATISTICS[statistic](norm_BT, x_BTC.shape[-1])
