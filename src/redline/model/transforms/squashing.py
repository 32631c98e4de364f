"""Norm layers that compute no statistics: they squash each value."""

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Le, Len
from torch import Tensor, nn

from redline.bounds import Count, Positive
from redline.errors import UserError
from redline.model.norm_strategy import Site
from redline.model.transforms.norm_layers import ChannelNorm, Dtype, Span

_BEFORE_ATTENTION = ("attn_in", "q", "k", "v")

# Rows of (width up to which it holds, or null for any; alpha before attention; alpha elsewhere).
Alpha = Annotated[Sequence[tuple[Count | None, Positive, Positive]], Len(1, 100)]


class Squashing(ChannelNorm):
    """``gain * f(alpha * x) + bias`` with one learned alpha, which starts at what ``alpha`` says."""

    def __init__(self, site: Site, span: Span, alpha: Alpha, affine: bool, dtype: Dtype) -> None:
        super().__init__(site, span, affine, dtype)
        fitting = [row for row in alpha if row[0] is None or site.width <= row[0]]
        if not fitting:
            raise UserError(f"norm_layer.alpha: no entry for the width {site.width}")
        _, before_attention, elsewhere = fitting[0]
        start = before_attention if site.name in _BEFORE_ATTENTION else elsewhere
        self.alpha = nn.Parameter(torch.tensor(float(start)))
        self.bias = nn.Parameter(torch.zeros(self.channels)) if affine else None

    def normalise(self, x: Tensor) -> Tensor:
        y = self.squash(x * self.alpha)
        return y if self.weight is None or self.bias is None else torch.addcmul(self.bias, y, self.weight)

    def squash(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class DyT(Squashing):
    """``gain * tanh(alpha * x) + bias`` (Zhu et al. 2025, arXiv 2503.10622, equation 2)."""

    def __init__(
        self, site: Site, alpha: Alpha, span: Span = None, affine: bool = True, dtype: Dtype = None
    ) -> None:
        super().__init__(site, span, alpha, affine, dtype)

    def squash(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class Derf(Squashing):
    """``gain * erf(alpha * x + shift) + bias`` (Chen et al. 2025, arXiv 2512.10938, equation 10).

    ``shift``: where the learned scalar starts.
    """

    def __init__(
        self,
        site: Site,
        alpha: Alpha,
        shift: Annotated[float, Ge(-10), Le(10)],
        span: Span = None,
        affine: bool = True,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(site, span, alpha, affine, dtype)
        self.shift = nn.Parameter(torch.tensor(float(shift)))

    def squash(self, x: Tensor) -> Tensor:
        return torch.erf(x + self.shift)
