"""How large the activations are: the paper's curves, and the residual stream's."""

import math

import torch
from torch import Tensor

from redline.metrics import NORM, RMS, of_layer
from redline.model import MappedModel
from redline.monitor.sites import Activations, Place, Statistics, on_activations
from redline.monitor.tap import Across, Step, Tap


class OutputNorm(Tap):
    """``norm/<site>/layer_<l>``: the mean over tokens of the L2 norm over channels. ``rms/<site>/layer_<l>``:
    the root of the mean square over tokens and channels.

    Sites are the outputs of the linears ``qkv``, ``proj``, ``fc1``, ``fc2``; ``q``, ``k``, ``v`` apart, as
    the QKV linear gives them; ``block_in``, a block's input; ``residual``, the residual stream after a block.
    """

    def __init__(self, sites: Activations, statistics: Statistics) -> None:
        super().__init__()
        self.sites = list(sites)
        self.statistics = list(statistics)
        self.norms: dict[Place, Tensor] = {}  # (B*T,) each: a linear may be given all tokens in one row
        self.channels: dict[Place, int] = {}

    def across_ranks(self, name: str) -> Across:
        return "root_mean_square" if name.startswith(RMS) else "mean"

    def attach(self, model: MappedModel) -> None:
        on_activations(self, model, self.sites, self._see)

    def _see(self, place: Place, x_BTC: Tensor) -> None:
        self.channels[place] = x_BTC.shape[-1]
        self.norms[place] = torch.linalg.vector_norm(x_BTC, dim=-1, dtype=torch.float32).flatten()

    def after_update(self, step: Step) -> None:
        """Both statistics of all sites from the tokens' norms: one pass over the activations, few calls."""
        places, norm_NT = list(self.norms), torch.stack(list(self.norms.values()))
        if NORM in self.statistics:
            for place, mean in zip(places, norm_NT.mean(1), strict=True):
                self.values[of_layer(NORM, *place)] = mean
        if RMS in self.statistics:
            for place, total in zip(places, torch.linalg.vector_norm(norm_NT, dim=1), strict=True):
                values = norm_NT.shape[1] * self.channels[place]
                self.values[of_layer(RMS, *place)] = total / math.sqrt(values)
        self.norms.clear()
        self.channels.clear()  # as it was: a compiled model is compiled anew where it is not
