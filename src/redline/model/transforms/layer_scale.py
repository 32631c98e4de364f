from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Len
from torch import Tensor, nn

from redline.bounds import Count, Positive
from redline.errors import UserError
from redline.model.norm_strategy import Site


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch (CaiT: Touvron et al. 2021, section 2).

    ``init`` lists pairs (number of layers up to which it holds, or null for any depth; initial factor).
    """

    def __init__(
        self, site: Site, init: Annotated[Sequence[tuple[Count | None, Positive]], Len(1, 100)]
    ) -> None:
        super().__init__()
        site.require("LayerScale", "BTD")
        fitting = [value for depth, value in init if depth is None or site.num_layers <= depth]
        if not fitting:
            raise UserError(f"norm_strategy.{site.name}.init: no entry for {site.num_layers} layers")
        self.weight = nn.Parameter(torch.full((site.width,), fitting[0]))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD * self.weight
