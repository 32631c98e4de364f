"""Multiplication: by a constant, or by what is learned."""

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from redline.bounds import Positive
from redline.errors import UserError
from redline.model.norm_strategy import Site

Power = Annotated[float, Ge(-4), Le(4)]


class Scale(nn.Module):
    """Multiplication by a constant; at `score` attention folds it into its own scale.

    The constant is ``factor`` times powers of the width, of a head's width, and of the layer's number from 1.
    """

    def __init__(
        self,
        site: Site,
        factor: Positive,
        width_power: Power = 0.0,
        head_power: Power = 0.0,
        layer_power: Power = 0.0,
    ) -> None:
        super().__init__()
        site.require("Scale", "BTD", "BHTK", "BHTT", "BTF", "BTV")
        if layer_power and site.layer is None:
            raise UserError(
                f"norm_strategy.{site.name}.layer_power={layer_power}: allowed outside of a block: 0"
            )
        layer = 1 if site.layer is None else site.layer + 1
        head = site.width // site.num_heads
        self.factor = factor * site.width**width_power * head**head_power * layer**layer_power

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class LearnedFactor(nn.Module):
    """A learned factor per channel, or one for the site, which starts at ``init * width**width_power``.

    The parameter starts at ``width**parameter_power`` and the factor is a constant times it: the smaller that
    is, the more of the factor one step of an optimizer changes (nGPT: Loshchilov et al. 2024, section 2.5).
    """

    def __init__(
        self, site: Site, init: Positive, width_power: Power, parameter_power: Power, per_channel: bool
    ) -> None:
        super().__init__()
        across_heads = site.axes == "BHTK"
        channels = site.width if across_heads else site.channels
        start = float(site.width) ** parameter_power
        # Flat, so that an optimizer takes it for the vector it is.
        self.weight = nn.Parameter(torch.full((channels,) if per_channel else (), start))
        self.shape = (site.num_heads, 1, -1) if across_heads and per_channel else self.weight.shape
        self.constant = init * site.width**width_power / start

    def factor(self) -> Tensor:
        return self.weight.view(self.shape) * self.constant


class LearnedScale(LearnedFactor):
    """Multiplication by a learned factor: see `LearnedFactor`."""

    def __init__(
        self,
        site: Site,
        init: Positive,
        width_power: Power = 0.0,
        parameter_power: Power = 0.0,
        per: Literal["channel", "site"] = "channel",
    ) -> None:
        site.require("LearnedScale", "BTD", "BHTK", "BTF", "BTV")
        super().__init__(site, init, width_power, parameter_power, per == "channel")

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor()
