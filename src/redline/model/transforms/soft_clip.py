from torch import Tensor, nn

from redline.errors import UserError
from redline.model.norm_strategy import Site


class SoftClip(nn.Module):
    """``clip((zeta - gamma) * p + gamma, 0, 1)``: lets a head attend to nothing (Bondarenko et al. 2023)."""

    def __init__(self, site: Site, zeta: float, gamma: float) -> None:
        super().__init__()
        site.require("SoftClip", "BHTT")
        if gamma > 0:
            # A positive gamma would give weight to the masked future.
            raise UserError(f"norm_strategy.{site.name}.gamma={gamma}: allowed: a number of at most 0")
        self.zeta, self.gamma = zeta, gamma

    def forward(self, p_BHTT: Tensor) -> Tensor:
        return (p_BHTT * (self.zeta - self.gamma) + self.gamma).clamp(0.0, 1.0)
