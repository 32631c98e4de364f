"""What stands in for a part of their model: a linear with sites about it, a block with all of its sites."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redline.model import Site
from redline.model.transforms.norm_layers import ChannelNorm, Span


@dataclass(frozen=True)
class Split:
    """How a linear's channels are those of several of q, k and v: ``heads`` of each. ``by_head``: those of
    the first head come first; else q's, then k's, then v's.
    """

    heads: Sequence[int]
    by_head: bool = False

    def of(self, x: Tensor) -> list[Tensor]:
        """Views of (...,heads,K) of (...,C)."""
        if self.by_head:
            return [*x.unflatten(-1, (self.heads[0], len(self.heads), -1)).unbind(-2)]
        width = x.shape[-1] // sum(self.heads)
        parts = x.split([heads * width for heads in self.heads], -1)
        return [part.unflatten(-1, (heads, width)) for part, heads in zip(parts, self.heads, strict=True)]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        if self.by_head:
            return torch.stack([*parts], -2).flatten(-3)
        return torch.cat([part.flatten(-2) for part in parts], -1)

    def flat(self, number: int, x: Tensor) -> Tensor:
        """One of the parts, (...,C)."""
        return self.of(x)[number].flatten(-2)


class Projection(nn.Module):
    """A linear of q, k or v, or of all three, and the modules of these sites, which see (B,heads,T,K)."""

    def __init__(self, linear: nn.Module, sites: Mapping[str, nn.Module], split: Split) -> None:
        super().__init__()
        # Not by the name of a site, which this is none of.
        self.theirs, self.split, self.names = linear, split, [*sites]
        for name, module in sites.items():
            self.add_module(name, module)

    def forward(self, x_BTD: Tensor) -> Tensor:
        parts = self.split.of(self.theirs(x_BTD))
        modules = map(self.get_submodule, self.names)
        done = [its(part.transpose(1, 2)).transpose(1, 2) for its, part in zip(modules, parts, strict=True)]
        return self.split.joined(done)


class Around(nn.Module):
    """A linear and modules of sites before and after it. A linear of several parts, such as gate and up, has
    one module after each.
    """

    def __init__(
        self, linear: nn.Module, before: Mapping[str, nn.Module], after: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.theirs, self.names, self.after = linear, [*before], nn.ModuleList(after)
        for name, module in before.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = self.get_submodule(name)(x)
        y: Tensor = self.theirs(x)
        if not self.after:
            return y
        parts = y.chunk(len(self.after), -1)
        return torch.cat([its(part) for its, part in zip(self.after, parts, strict=True)], -1)


class Gated(nn.Module):
    """The module of the site `gate`, which sees the heads' outputs and the attention's input."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate
        self.x_BTD: Tensor | None = None  # the block sets it, just before the attention is called

    def forward(self, y_BTD: Tensor) -> Tensor:
        gated: Tensor = self.gate(y_BTD, self.x_BTD)
        self.x_BTD = None
        return gated


class Native(ChannelNorm):
    """The model's own norm: ``own``, which it has at this site, or where that is not of this span a new one
    ``like`` another.
    """

    def __init__(self, site: Site, span: Span = None, *, like: Any, own: Any = None) -> None:
        super().__init__(site, span, affine=False, dtype=None)
        self.norm = own
        if own is None or own.weight is None or own.weight.numel() != self.channels:
            eps = getattr(like, "variance_epsilon", getattr(like, "eps", None))
            self.norm = type(like)(self.channels, *(() if eps is None else (eps,)))

    def normalise(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y


class Block(nn.Module):
    """One of their blocks, with every site of a strategy: their attention and MLP, and our order of the rest.

    ``sites``: the modules of the block's own sites. ``names``: of the inputs that their block has beside the
    residual stream; the attention gets them all. ``parallel``: the MLP reads the block's input.
    """

    embed: nn.Module
    attn_in: nn.Module
    proj_out: nn.Module
    attn_branch: nn.Module
    attn_sum: nn.Module
    attn_residual: nn.Module
    mlp_in: nn.Module
    fc2_out: nn.Module
    mlp_branch: nn.Module
    mlp_sum: nn.Module
    mlp_residual: nn.Module

    def __init__(
        self,
        attention: nn.Module,
        mlp: nn.Module,
        sites: Mapping[str, nn.Module],
        names: Sequence[str],
        dropout: float,
        parallel: bool,
        gated: Gated | None,
    ) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.names, self.dropout, self.parallel = [*names], dropout, parallel
        self.gated = [] if gated is None else [gated]  # a list: it is a part of the attention
        for name, module in sites.items():
            self.add_module(name, module)

    def forward(self, x_BTD: Tensor, *values: Any, **named: Any) -> Tensor:
        given = {**dict(zip(self.names, values, strict=False)), **named}
        x_BTD = self.embed(x_BTD)
        attn_BTD = self._attention(self.attn_in(x_BTD), given)
        if self.parallel:
            sum_BTD = self._mlp(x_BTD) + attn_BTD + x_BTD
        else:
            x_BTD = self.attn_residual(self.attn_sum(x_BTD, attn_BTD))
            sum_BTD = self.mlp_sum(x_BTD, self._mlp(x_BTD))
        y_BTD: Tensor = self.mlp_residual(sum_BTD)
        return y_BTD

    def _attention(self, x_BTD: Tensor, given: Mapping[str, Any]) -> Tensor:
        for gated in self.gated:
            gated.x_BTD = x_BTD
        y = self.attention(x_BTD, **given)
        y_BTD = self.proj_out(y[0] if isinstance(y, tuple) else y)
        attn_BTD: Tensor = self.attn_branch(F.dropout(y_BTD, self.dropout, self.training))
        return attn_BTD

    def _mlp(self, x_BTD: Tensor) -> Tensor:
        y_BTD = self.fc2_out(self.mlp(self.mlp_in(x_BTD)))
        mlp_BTD: Tensor = self.mlp_branch(F.dropout(y_BTD, self.dropout, self.training))
        return mlp_BTD
