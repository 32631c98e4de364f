"""How large the weights are."""

import math

import torch

from redline import over_ranks
from redline.metrics import NORM, RMS, of_layer
from redline.model import MappedModel
from redline.monitor.sites import Linears, Statistics
from redline.monitor.tap import Step, Tap
from redline.monitor.weights import Matrices, trained_weight


class WeightNorm(Tap):
    """Of the matrix that a linear multiplied with: ``weight_norm/<site>/layer_<l>``, the L2 norm, and
    ``weight_rms/<site>/layer_<l>``, the root of the mean square.
    """

    def __init__(self, sites: Linears, statistics: Statistics) -> None:
        super().__init__()
        self.sites = list(sites)
        self.statistics = list(statistics)

    def attach(self, model: MappedModel) -> None:
        self.matrices = Matrices(model, self.sites)
        self.sizes = [
            sum(trained_weight(linear).numel() for linear in its) for its in self.matrices.linears.values()
        ]

    def before_update(self, step: Step) -> None:
        places = self.matrices.linears
        norms = self.matrices.joined(over_ranks.norms(self.matrices.effective()))
        if NORM in self.statistics:
            for place, norm in zip(places, norms, strict=True):
                self.values[of_layer("weight_norm", *place)] = norm
        if RMS in self.statistics:
            roots = torch._foreach_div(norms, [math.sqrt(size) for size in self.sizes])
            for place, rms in zip(places, roots, strict=True):
                self.values[of_layer("weight_rms", *place)] = rms
