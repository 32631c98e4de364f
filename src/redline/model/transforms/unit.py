"""Length 1, of states and of weights (nGPT: Loshchilov et al. 2024, arXiv 2410.01131)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redline.model.norm_strategy import Site
from redline.model.transforms.norm_layers import ChannelNorm, Dtype, Span


class UnitNorm(ChannelNorm):
    """A token's channels to an L2 norm of 1, with nothing learned."""

    def __init__(self, site: Site, span: Span = None, dtype: Dtype = None) -> None:
        super().__init__(site, span, affine=False, dtype=dtype)

    def normalise(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


class UnitWeight(nn.Module):
    """Every vector of a weight that reads from or writes to the residual stream has an L2 norm of 1.

    Before each forward that is trained on, the stored weight itself is put back to these lengths, which is
    the same as after each step of the optimizer. So they do not grow, and the LR keeps its meaning.
    """

    def __init__(self, site: Site) -> None:
        super().__init__()
        site.require("UnitWeight", "weight")
        self.axis = site.stream_axis

    def forward(self, weight: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return F.normalize(weight, dim=self.axis)
        # Through `data`: whatever else reads the weight before the backward changes it by rounding alone.
        weight.data.copy_(F.normalize(weight.data, dim=self.axis))
        return weight
