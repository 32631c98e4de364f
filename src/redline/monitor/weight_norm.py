"""How large the weights are."""

from collections.abc import Sequence

import torch

from redline.model import Transformer
from redline.monitor.sites import LINEARS, checked, linears
from redline.monitor.tap import Step, Tap
from redline.monitor.weights import effective_weight


class WeightNorm(Tap):
    """``weight_norm/<site>/layer_<l>``: the L2 norm of the matrix that a linear multiplied with."""

    def __init__(self, sites: Sequence[str]) -> None:
        super().__init__()
        self.sites = checked(sites, tuple(LINEARS))

    def attach(self, model: Transformer) -> None:
        self.linears = dict(linears(model, self.sites))

    def before_update(self, step: Step) -> None:
        norms = torch._foreach_norm([effective_weight(linear) for linear in self.linears.values()])
        for name, norm in zip(self.linears, norms, strict=True):
            self.values[f"weight_norm/{name}"] = norm
