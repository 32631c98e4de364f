"""Where the parts of a model are that taps, losses and optimizers look at, whatever its code calls them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Final

from torch import Tensor, nn

from redline.errors import UserError
from redline.model.attention import ScaledDotProduct


class Linear(StrEnum):
    """The linears of a block, by the names that configurations and metrics give them."""

    qkv = auto()
    proj = auto()
    fc1 = auto()
    fc2 = auto()


LINEARS: Final = tuple(Linear)


@dataclass(frozen=True)
class Output:
    """What a place puts out, (B,T,C): the outputs of its linears side by side; where ``part`` says so, some
    channels of the one linear's.
    """

    linears: tuple[nn.Module, ...]
    part: Callable[[Tensor], Tensor] | None = None

    def of(self, x_BTC: Tensor) -> Tensor:
        return x_BTC if self.part is None else self.part(x_BTC)


@dataclass(frozen=True)
class Layer:
    """``block`` takes and gives the residual stream, its first argument. ``outputs``: by name, each of
    `Linear`, and ``q``, ``k``, ``v`` before any norm of theirs; or any other names, for a model of other
    parts. ``attention``: where scores are made; None where nobody may look. ``qk_weight``: the module of that
    site. ``scale_heads`` multiplies what makes q and k, in place, by a factor for each of their heads: (H,)
    and (G,), where ``key_heads`` is G.
    """

    block: nn.Module
    outputs: Mapping[str, Output]
    attention: ScaledDotProduct | None = None
    qk_weight: nn.Module | None = None
    key_heads: int = 0
    scale_heads: Callable[[Tensor, Tensor], None] | None = None

    def output(self, name: str) -> Output:
        """Raises UserError where the model has none."""
        if name not in self.outputs:
            raise UserError(f"sites: this model has no {name}; allowed here: {', '.join(self.outputs)}")
        return self.outputs[name]


@dataclass(frozen=True)
class SiteMap:
    """``head``: the linear that gives the logits; ``width``: of the residual stream. None: there is none."""

    layers: Sequence[Layer]
    head: nn.Module | None = None
    width: int | None = None


class MappedModel(nn.Module):
    """A model that says where its parts are. One of language: token ids (B,T) to logits (B,T,V)."""

    @property
    def site_map(self) -> SiteMap:
        raise NotImplementedError

    @staticmethod
    def small(arguments: dict[str, Any]) -> dict[str, Any]:
        """Those of a model of one layer, which takes a step in no time and is else alike."""
        return arguments
