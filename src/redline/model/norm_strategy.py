"""A norm strategy: a table that says which transform acts at which site of a block."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn
from torch.nn.utils import parametrize

from redline.errors import UserError

# B batch, T tokens, D width, H heads, K head width
SITES: Final[Mapping[str, str]] = {
    "attn_in": "BTD",
    "q": "BHTK",
    "k": "BHTK",
    "v": "BHTK",
    "score": "BHTT",
    "prob": "BHTT",
    "proj_out": "BTD",
    "attn_branch": "BTD",
    "attn_residual": "BTD",
    "mlp_in": "BTD",
    "fc2_out": "BTD",
    "mlp_branch": "BTD",
    "mlp_residual": "BTD",
    "linear": "weight",
    "final": "BTD",
}


@dataclass(frozen=True)
class Site:
    """The place of a transform: all that it may depend on."""

    name: str
    width: int
    num_heads: int
    num_layers: int
    weight: Tensor | None = None  # at `linear`: the weight that is reparametrized

    @property
    def axes(self) -> str:
        return SITES[self.name]

    def require(self, transform: str, *axes: str) -> None:
        """Raise UserError unless ``transform`` can act on the tensor at this site."""
        if self.axes not in axes:
            allowed = ", ".join(name for name, its in SITES.items() if its in axes)
            raise UserError(f"norm_strategy.{self.name}: {transform} cannot act here; allowed: {allowed}")


Transform = Callable[[Site], nn.Module]


@dataclass(frozen=True)
class NormStrategy:
    """Builds the module of every site; a site whose transform is None is the identity."""

    transforms: Mapping[str, Transform | None]
    width: int
    num_heads: int
    num_layers: int

    def at(self, name: str, weight: Tensor | None = None) -> nn.Module:
        transform = self.transforms[name]
        if transform is None:
            return nn.Identity()
        return transform(Site(name, self.width, self.num_heads, self.num_layers, weight))

    def reparametrize(self, model: nn.Module) -> None:
        """Put the `linear` transform on the weight of every Linear, after initialisation."""
        if self.transforms["linear"] is None:
            return
        for linear in [module for module in model.modules() if isinstance(module, nn.Linear)]:
            parametrize.register_parametrization(linear, "weight", self.at("linear", linear.weight))
