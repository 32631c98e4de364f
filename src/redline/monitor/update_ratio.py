"""How far a step moves the weights."""

import torch
from torch import Tensor

from redline import over_ranks
from redline.metrics import of_layer
from redline.model import MappedModel
from redline.monitor.sites import Linears
from redline.monitor.tap import Step, Tap
from redline.monitor.weights import Matrices


class UpdateRatio(Tap):
    """``update_ratio/<site>/layer_<l>``: the L2 norm of a step's change of the matrix that a linear
    multiplies with, over the L2 norm of that matrix before. A step that is read holds a copy of the weights.
    """

    def __init__(self, sites: Linears) -> None:
        super().__init__()
        self.sites = list(sites)
        self.before: list[Tensor] = []

    def attach(self, model: MappedModel) -> None:
        self.matrices = Matrices(model, self.sites)

    def before_update(self, step: Step) -> None:
        self.before = [weight.clone() for weight in self.matrices.effective()]

    def after_update(self, step: Step) -> None:
        joined, after = self.matrices.joined, self.matrices.effective()
        changes = joined(over_ranks.norms(torch._foreach_sub(after, self.before)))
        ratios = torch._foreach_div(changes, joined(over_ranks.norms(self.before)))
        self.before = []
        for place, ratio in zip(self.matrices.linears, ratios, strict=True):
            self.values[of_layer("update_ratio", *place)] = ratio
