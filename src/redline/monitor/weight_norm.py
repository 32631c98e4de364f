"""How large the weights are."""

import math

import torch

from redline.metrics import NORM, RMS, of_layer
from redline.model import Transformer
from redline.monitor.sites import Linears, Statistics, linears
from redline.monitor.tap import Step, Tap
from redline.monitor.weights import effective_weight


class WeightNorm(Tap):
    """Of the matrix that a linear multiplied with: ``weight_norm/<site>/layer_<l>``, the L2 norm, and
    ``weight_rms/<site>/layer_<l>``, the root of the mean square.
    """

    def __init__(self, sites: Linears, statistics: Statistics) -> None:
        super().__init__()
        self.sites = list(sites)
        self.statistics = list(statistics)

    def attach(self, model: Transformer) -> None:
        self.linears = dict(linears(model, self.sites))

    def before_update(self, step: Step) -> None:
        weights = [effective_weight(linear) for linear in self.linears.values()]
        norms = torch._foreach_norm(weights)
        if NORM in self.statistics:
            for place, norm in zip(self.linears, norms, strict=True):
                self.values[of_layer("weight_norm", *place)] = norm
        if RMS in self.statistics:
            roots = torch._foreach_div(norms, [math.sqrt(weight.numel()) for weight in weights])
            for place, rms in zip(self.linears, roots, strict=True):
                self.values[of_layer("weight_rms", *place)] = rms
