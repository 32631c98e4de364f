"""What each parameter of a transformer is: its name, its role and its place."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from torch import nn

from redline.model.site_map import LINEARS, Linear, MappedModel

Role = Literal["embedding", "head", "hidden", "vector"]
ROLES: Final = get_args(Role)


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


def named_parameters(model: MappedModel) -> list[Named]:
    """Its parameters, in its order. One that is embedding and head at once counts as the embedding's."""
    embeddings = {
        id(weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters()
    }
    sites = model.site_map
    head = set() if sites.head is None else {id(weight) for weight in sites.head.parameters()}
    layers: dict[int, int] = {}
    linears: dict[int, Linear] = {}
    for number, layer in enumerate(sites.layers):
        layers |= {id(weight): number for weight in layer.block.parameters()}
        for name in LINEARS:
            found = layer.outputs[name].linears if name in layer.outputs else ()
            linears |= {id(weight): name for linear in found for weight in linear.parameters()}

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
