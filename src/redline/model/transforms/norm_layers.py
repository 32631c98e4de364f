"""The norms that `norm_layer=` chooses from. Each may also be named directly at a site of a strategy."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from redline.bounds import Epsilon
from redline.errors import UserError
from redline.model.norm_strategy import Site
from redline.model.recompute import recomputing

Span = Literal["head", "full"] | None
Dtype = Literal["float32"] | None


def norm(site: Site, span: Span = None) -> nn.Module:
    """The norm layer of the run, whatever `norm_layer=` chose, at this site."""
    return site.norm_layer(site, span=span)


class ChannelNorm(nn.Module):
    """What the norms share: which channels they act on, and in which precision.

    At `q`, `k` and `v` the span is a choice that changes the method and must be made:
    ``head`` acts on the K channels of each head (one learned gain of K, shared by the heads),
    ``full`` on the D = H*K channels of all heads together. ``affine``: a learned gain per channel.
    ``dtype``: float32 computes in it and gives the input's back; null leaves that to torch.

    Raises UserError where the span is missing or impossible.
    """

    def __init__(self, site: Site, span: Span, affine: bool, dtype: Dtype) -> None:
        super().__init__()
        site.require(type(self).__name__, "BTD", "BHTK", "BTF")
        spans = ("head", "full") if site.axes == "BHTK" else (None, "full")
        if span not in spans:
            allowed = ", ".join(str(name) for name in spans if name)
            raise UserError(f"norm_strategy.{site.name}.span={span}: allowed: {allowed}")
        self.num_heads = site.num_heads
        self.across_heads = site.axes == "BHTK" and span == "full"
        self.channels = site.width if self.across_heads else site.channels
        self.in_fp32 = dtype == "float32"
        self.weight = nn.Parameter(torch.ones(self.channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return self._spanned(x.float()).to(x.dtype) if self.in_fp32 else self._spanned(x)

    def _spanned(self, x: Tensor) -> Tensor:
        if not self.across_heads:
            return self.normalise(x)
        y_BTD = self.normalise(x.transpose(1, 2).flatten(2))
        return y_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def normalise(self, x: Tensor) -> Tensor:
        """``x``: (...,C), normalised over what the norm's kind says."""
        raise NotImplementedError


class LayerNorm(ChannelNorm):
    """Mean 0 and variance 1 over a token's channels (Ba et al. 2016, arXiv 1607.06450)."""

    def __init__(
        self,
        site: Site,
        span: Span = None,
        eps: Epsilon = 1e-5,
        affine: bool = True,
        bias: bool = False,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(site, span, affine, dtype)
        self.eps = eps
        self.bias = nn.Parameter(torch.zeros(self.channels)) if bias else None

    def normalise(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.channels,), self.weight, self.bias, self.eps)


class RMSNorm(ChannelNorm):
    """Root mean square 1 over a token's channels (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def __init__(
        self, site: Site, span: Span = None, eps: Epsilon = 1e-6, affine: bool = True, dtype: Dtype = None
    ) -> None:
        super().__init__(site, span, affine, dtype)
        self.eps = eps

    def normalise(self, x: Tensor) -> Tensor:
        if self.weight is not None:
            x = x.to(self.weight.dtype)  # autocast does so for LayerNorm; torch is slow where they differ
        return F.rms_norm(x, (self.channels,), self.weight, self.eps)


class BatchNorm(ChannelNorm):
    """Mean 0 and variance 1 of a channel over a batch's tokens (Ioffe & Szegedy 2015, arXiv 1502.03167).

    In training a token sees the statistics of the others, later ones too: the loss in training is that of a
    model that leaks the future. In evaluation the running statistics stand in for them, and nothing leaks.
    Of an accumulated batch each part has its own. ``momentum``: what a step adds to the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        site: Site,
        span: Span = None,
        eps: Epsilon = 1e-5,
        affine: bool = True,
        momentum: Annotated[float, Ge(0), Le(1)] = 0.1,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(site, span, affine, dtype)
        self.eps, self.momentum = eps, momentum
        self.register_buffer("running_mean", torch.zeros(self.channels))
        self.register_buffer("running_var", torch.ones(self.channels))

    def normalise(self, x: Tensor) -> Tensor:
        y_NC = F.batch_norm(
            x.reshape(-1, self.channels),
            self.running_mean,
            self.running_var,
            self.weight,
            training=self.training,
            momentum=0.0 if recomputing() else self.momentum,
            eps=self.eps,
        )
        return y_NC.view(x.shape)
