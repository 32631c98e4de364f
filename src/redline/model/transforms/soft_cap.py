import torch
from torch import Tensor, nn

from redline.bounds import Positive
from redline.model.norm_strategy import Site


class SoftCap(nn.Module):
    """``cap * tanh(x / cap)``: bounds logits smoothly (Gemma 2; Rybakov et al. 2024)."""

    def __init__(self, site: Site, cap: Positive) -> None:
        super().__init__()
        site.require("SoftCap", "BHTT", "BHTK", "BTD", "BTF", "BTV")
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / self.cap) * self.cap
