"""How large the gradients of the weights are."""

import torch

from redline.metrics import of_layer
from redline.model import Transformer
from redline.monitor.sites import Linears, linears
from redline.monitor.tap import Step, Tap
from redline.monitor.weights import trained_weight


class WeightGradNorm(Tap):
    """``weight_grad_norm/<site>/layer_<l>``: the L2 norm, before clipping, of the gradient of what is trained
    there; under a reparametrization that is the matrix which the weight is made from.
    """

    def __init__(self, sites: Linears) -> None:
        super().__init__()
        self.sites = list(sites)

    def attach(self, model: Transformer) -> None:
        self.weights = {place: trained_weight(linear) for place, linear in linears(model, self.sites)}

    def before_update(self, step: Step) -> None:
        gradients = {place: weight.grad for place, weight in self.weights.items() if weight.grad is not None}
        norms = torch._foreach_norm(list(gradients.values())) if gradients else ()
        for place, norm in zip(gradients, norms, strict=True):
            self.values[of_layer("weight_grad_norm", *place)] = norm
