"""A norm strategy: a table that says which transforms act at which site of the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from redline.errors import UserError

# B batch, T tokens, D width, H heads, K head width, F inner width of the MLP, V vocabulary
SITES: Final[Mapping[str, str]] = {
    "embed": "BTD",
    "attn_in": "BTD",
    "q": "BHTK",
    "k": "BHTK",
    "v": "BHTK",
    "qk_weight": "BHTK*BHTK",  # q is passed on, k is looked at
    "score": "BHTT",
    "softmax": "BHTT->BHTT",  # from masked scores to probabilities
    "prob": "BHTT",
    "gate": "BTD*BTD",  # the heads' outputs are passed on, the input of QKV says how much of them
    "proj_in": "BTD",
    "proj_out": "BTD",
    "attn_branch": "BTD",
    "attn_sum": "BTD+BTD",  # two inputs, the residual stream and the branch, to one output
    "attn_residual": "BTD",
    "mlp_in": "BTD",
    "fc1_out": "BTF",
    "fc2_in": "BTF",
    "fc2_out": "BTD",
    "mlp_branch": "BTD",
    "mlp_sum": "BTD+BTD",
    "mlp_residual": "BTD",
    "linear": "weight",
    "final": "BTD",
    "logits": "BTV",
}
OUTSIDE: Final = ("embed", "final", "logits")  # of the blocks


@dataclass(frozen=True)
class Site:
    """The place of a transform: all that it may depend on."""

    name: str
    width: int
    num_heads: int
    num_layers: int
    inner: int  # width of the MLP between FC1 and FC2
    vocab_size: int
    norm_layer: "Callable[..., nn.Module]"  # the norm that the user chose, from a site and a span
    layer: int | None = None  # the block's number, from 0; None outside of them
    weight: Tensor | None = None  # at `linear`: the weight that is reparametrized
    stream_axis: int = 1  # at `linear`: which axis of the weight is the residual stream's: 0 writes to it
    stream: int | None = None  # width of the residual stream, where all heads together have another

    @property
    def axes(self) -> str:
        return SITES[self.name]

    @property
    def channels(self) -> int:
        """The size of the last axis of what passes here; of scores and probabilities it is not fixed."""
        sizes = {"D": self.width, "K": self.width // self.num_heads, "F": self.inner, "V": self.vocab_size}
        return sizes[self.axes[-1]]

    def require(self, transform: str, *axes: str) -> None:
        """Raise UserError unless ``transform`` can act on the tensor at this site."""
        if self.axes not in axes:
            allowed = ", ".join(name for name, its in SITES.items() if its in axes)
            raise UserError(f"norm_strategy.{self.name}: {transform} cannot act here; allowed: {allowed}")


@dataclass(frozen=True)
class Transform:
    """What makes a module for a site, and the layers where it acts: ``low <= layer / num_layers < high``."""

    make: Callable[[Site], nn.Module]
    layers: tuple[float, float] | None = None  # None: all, and outside of the blocks
    is_norm: bool = False  # whether it is the norm that the user chose, in all layers

    def acts(self, layer: int | None, num_layers: int) -> bool:
        if self.layers is None:
            return True
        low, high = self.layers
        return layer is not None and low <= layer / num_layers < high


class Sum(nn.Module):
    """The residual stream plus a branch."""

    def forward(self, x_BTD: Tensor, branch_BTD: Tensor) -> Tensor:
        return x_BTD + branch_BTD


class Softmax(nn.Module):
    """Of the masked scores, in fp32."""

    def forward(self, score_BHTT: Tensor) -> Tensor:
        return torch.softmax(score_BHTT, -1, dtype=torch.float32)


class First(nn.Module):
    """The first of its inputs, as it is."""

    def forward(self, x: Tensor, *others: object) -> Tensor:
        return x


# What a site is where no transform acts, if not the identity. At such a site one may act, not several.
PLAIN: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "qk_weight": First,
    "softmax": Softmax,
    "gate": First,
    "attn_sum": Sum,
    "mlp_sum": Sum,
}


@dataclass(frozen=True)
class NormStrategy:
    """Builds the module of every site from the transforms there, which act one after the other.

    Where none acts, the module is the identity, or what `PLAIN` says.
    """

    transforms: Mapping[str, Sequence[Transform]]
    norm_layer: Callable[..., nn.Module]
    width: int
    num_heads: int
    num_layers: int
    inner: int
    vocab_size: int
    layer: int | None = None
    stream: int | None = None  # as `Site` has it

    def in_layer(self, layer: int) -> "NormStrategy":
        return replace(self, layer=layer)

    def at(self, name: str) -> nn.Module:
        modules = self._modules(self.site(name))
        if len(modules) > 1 and name in PLAIN:
            raise UserError(f"norm_strategy.{name}.then: allowed: one transform in each layer")
        if len(modules) > 1:
            return nn.Sequential(*modules)
        return modules[0] if modules else PLAIN.get(name, nn.Identity)()

    def reparametrize(self, part: nn.Module) -> None:
        """Put the `linear` transforms on the weight of every Linear in ``part``, after initialisation."""
        if not self.transforms["linear"]:
            return
        for name, linear in [*part.named_modules()]:
            if isinstance(linear, nn.Linear) and not parametrize.is_parametrized(linear):
                self.reparametrize_one(linear, 0 if name.endswith((".proj", ".fc2")) else 1)

    def reparametrize_one(self, linear: nn.Module, stream_axis: int) -> None:
        """``stream_axis``: as `Site` has it."""
        weight = linear.get_parameter("weight")
        for module in self._modules(replace(self.site("linear"), weight=weight, stream_axis=stream_axis)):
            with torch.no_grad():  # it is called once to be checked, which trains nothing
                parametrize.register_parametrization(linear, "weight", module)

    def site(self, name: str) -> Site:
        shape = (self.width, self.num_heads, self.num_layers, self.inner, self.vocab_size)
        layer = None if name in OUTSIDE else self.layer
        return Site(name, *shape, self.norm_layer, layer, stream=self.stream)

    def _modules(self, site: Site) -> list[nn.Module]:
        acting = [its for its in self.transforms[site.name] if its.acts(site.layer, self.num_layers)]
        return [its.make(site) for its in acting]
