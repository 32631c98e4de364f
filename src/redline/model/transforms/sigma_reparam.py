from contextlib import nullcontext

import torch
from torch import Tensor, nn

from redline.model.norm_strategy import Site
from redline.model.recompute import recomputing


class SigmaReparam(nn.Module):
    """``gamma * W / sigma(W)`` for a weight W, sigma its largest singular value (Zhai et al. 2023).

    sigma comes from one power iteration a training forward, started from the SVD of the initial
    weight; the learned gamma starts at sigma(W0), so the weight is unchanged at the start.
    """

    u: Tensor
    v: Tensor

    def __init__(self, site: Site) -> None:
        super().__init__()
        site.require("SigmaReparam", "weight")
        assert site.weight is not None
        with torch.no_grad():
            u, sigma, v = torch.linalg.svd(site.weight.float(), full_matrices=False)
        self.gamma = nn.Parameter(sigma[0].clone())
        self.register_buffer("u", u[:, 0].clone())
        self.register_buffer("v", v[0].clone())

    def forward(self, weight: Tensor) -> Tensor:
        device = weight.device.type
        castable = torch.amp.is_autocast_available(device)  # not so on the meta device
        # Autocast would take sigma in bf16: three digits, and every weight is divided by it.
        with torch.autocast(device, enabled=False) if castable else nullcontext():
            u, v = self._singular_vectors(weight)
            return weight * (self.gamma / torch.dot(u, torch.mv(weight, v)))

    @torch.no_grad()
    def _singular_vectors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training or recomputing():
            return self.u, self.v
        v = nn.functional.normalize(torch.mv(weight.T, self.u), dim=0)
        u = nn.functional.normalize(torch.mv(weight, v), dim=0)
        self.u.copy_(u)
        self.v.copy_(v)
        return u, v
