from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor, nn

from redline.model.norm_strategy import Site

Zeta = Annotated[float, Ge(1), Le(100)]
Gamma = Annotated[float, Ge(-100), Le(0)]  # a positive one would give weight to the masked future


class SoftClip(nn.Module):
    """``clip((zeta - gamma) * p + gamma, 0, 1)``: lets a head attend to nothing (Bondarenko et al. 2023)."""

    def __init__(self, site: Site, zeta: Zeta, gamma: Gamma) -> None:
        super().__init__()
        site.require("SoftClip", "BHTT")
        self.zeta, self.gamma = zeta, gamma

    def forward(self, p_BHTT: Tensor) -> Tensor:
        return (p_BHTT * (self.zeta - self.gamma) + self.gamma).clamp(0.0, 1.0)
