from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from redline.model.norm_strategy import Site


class SigmoidGate(nn.Module):
    """``y * sigmoid(x W)`` on the heads' outputs y, x the input of QKV (Qiu et al. 2025, arXiv 2505.06708,
    position G1). ``per``: one gate for each channel, or one for each head.

    W is a linear of the block; the model draws it as its others.
    """

    def __init__(self, site: Site, per: Literal["element", "head"]) -> None:
        super().__init__()
        site.require("SigmoidGate", "BTD*BTD")
        self.num_gates = site.width if per == "element" else site.num_heads
        # Not drawn here: what is drawn after it would be other than without a gate.
        self.matrix = skip_init(
            nn.Linear,
            site.stream or site.width,
            self.num_gates,
            bias=False,
            device=torch.get_default_device(),
        )

    def forward(self, y_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        gate_BTG = torch.sigmoid(self.matrix(x_BTD))
        # A gate is for the D / G channels that follow each other.
        return (y_BTD.unflatten(-1, (self.num_gates, -1)) * gate_BTG.unsqueeze(-1)).flatten(-2)
