"""What each parameter of a transformer is: its name, its role and its place."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Final, Literal, get_args

from torch import nn

Role = Literal["embedding", "head", "hidden", "vector"]
ROLES: Final = get_args(Role)


class Linear(StrEnum):
    """The linears of a block, by the names that configurations and metrics give them."""

    qkv = auto()
    proj = auto()
    fc1 = auto()
    fc2 = auto()


LINEARS: Final[Mapping[str, str]] = {
    Linear.qkv: "attention.qkv",
    Linear.proj: "attention.proj",
    Linear.fc1: "mlp.fc1",
    Linear.fc2: "mlp.fc2",
}


@dataclass(frozen=True)
class Named:
    """A parameter. ``embedding``: of tokens or positions; ``hidden``: any other matrix but the head's;
    ``vector``: what has fewer than two dimensions (gains, scalars).

    ``name``: in the model; a reparametrized weight keeps the name that it had. ``linear``: whose matrix it
    is, where it is that of a block's own linear. ``layer``: its block, from 0.
    """

    name: str
    parameter: nn.Parameter
    role: Role
    linear: Linear | None = None
    layer: int | None = None


def named_parameters(model: nn.Module) -> list[Named]:
    """The parameters of a `Transformer`, in its order."""
    embeddings = {
        id(weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters()
    }
    head = {id(weight) for weight in model.get_submodule("head").parameters()}
    layers: dict[int, int] = {}
    linears: dict[int, Linear] = {}
    for layer, block in enumerate(model.get_submodule("blocks").children()):
        layers |= {id(weight): layer for weight in block.parameters()}
        for linear in Linear:
            linears |= {id(weight): linear for weight in block.get_submodule(LINEARS[linear]).parameters()}

    def named(name: str, weight: nn.Parameter) -> Named:
        name, key = name.replace(".parametrizations.weight.original", ".weight"), id(weight)
        if weight.ndim < 2:
            return Named(name, weight, "vector", layer=layers.get(key))
        if key in embeddings:  # those of positions are reached from every block
            return Named(name, weight, "embedding")
        if key in head:
            return Named(name, weight, "head")
        return Named(name, weight, "hidden", linears.get(key), layers.get(key))

    return [named(name, weight) for name, weight in model.named_parameters()]
