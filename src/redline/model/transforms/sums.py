"""Other ways than a plain sum for the residual stream and a branch to become one."""

import torch
from torch import Tensor, nn

from redline.bounds import Positive
from redline.model.norm_strategy import Site
from redline.model.transforms.scale import LearnedFactor, Power


class Highway(nn.Module):
    """``a * x + branch`` with the constant ``a = (times * num_layers) ** power``.

    DeepNorm's is ``(2 N) ** (1/4)`` for a decoder of N layers (Wang et al. 2022, arXiv 2203.00555).
    """

    def __init__(self, site: Site, times: Positive, power: Power) -> None:
        super().__init__()
        site.require("Highway", "BTD+BTD")
        self.factor = (times * site.num_layers) ** power

    def forward(self, x_BTD: Tensor, branch_BTD: Tensor) -> Tensor:
        return torch.add(branch_BTD, x_BTD, alpha=self.factor)


class Interpolate(LearnedFactor):
    """``x + a * (branch - x)`` with a learned ``a`` per channel, ``init`` at the start, taken as positive.

    The step sizes of nGPT (Loshchilov et al. 2024, arXiv 2410.01131, equations 10 and 11).
    """

    def __init__(self, site: Site, init: Positive, parameter_power: Power = 0.0) -> None:
        site.require("Interpolate", "BTD+BTD")
        super().__init__(site, init, 0.0, parameter_power, per_channel=True)

    def forward(self, x_BTD: Tensor, branch_BTD: Tensor) -> Tensor:
        return x_BTD + self.factor().abs() * (branch_BTD - x_BTD)
