from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redline.bounds import Epsilon
from redline.errors import UserError
from redline.model.norm_strategy import Site


class LayerNorm(nn.Module):
    """LayerNorm without a bias, over the width or over each head.

    At `q`, `k` and `v` the span is a choice that changes the method and must be made:
    ``head`` normalises the K channels of each head (one learned weight of K, shared by the heads),
    ``full`` the D = H*K channels of all heads together.

    Raises UserError where the span is missing or impossible.
    """

    def __init__(self, site: Site, span: Literal["head", "full"] | None = None, eps: Epsilon = 1e-5) -> None:
        super().__init__()
        site.require("LayerNorm", "BTD", "BHTK")
        spans = ("head", "full") if site.axes == "BHTK" else (None, "full")
        if span not in spans:
            allowed = ", ".join(str(name) for name in spans if name)
            raise UserError(f"norm_strategy.{site.name}.span={span}: allowed: {allowed}")
        self.across_heads = site.axes == "BHTK" and span == "full"
        self.num_heads = site.num_heads
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(site.width // site.num_heads if span == "head" else site.width))

    def forward(self, x: Tensor) -> Tensor:
        if not self.across_heads:
            return F.layer_norm(x, self.weight.shape, self.weight, eps=self.eps)
        x_BTD = x.transpose(1, 2).flatten(2)
        y_BTD = F.layer_norm(x_BTD, self.weight.shape, self.weight, eps=self.eps)
        return y_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
