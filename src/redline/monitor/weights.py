"""The weight of a linear that may be reparametrized. Then reading ``linear.weight`` runs the parametrization
and, in training, updates its buffers. Taps use these functions, which do not.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from redline.model import MappedModel
from redline.monitor.sites import outputs


class Matrices:
    """Those of the linears at some places: several at a place where its output is that of several."""

    def __init__(self, model: MappedModel, sites: Sequence[str]) -> None:
        self.linears = {place: output.linears for place, output in outputs(model, sites)}

    def effective(self) -> list[Tensor]:
        """All of them, in the places' order: see `effective_weight`."""
        return [effective_weight(linear) for its in self.linears.values() for linear in its]

    def joined(self, norms: Iterable[Tensor]) -> list[Tensor]:
        """From the L2 norm of every matrix to that of every place."""
        rest = iter(norms)
        return [root_of_squares([next(rest) for _ in its]) for its in self.linears.values()]


def root_of_squares(norms: Sequence[Tensor]) -> Tensor:
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack([*norms]))


@torch.no_grad()
def effective_weight(linear: nn.Module) -> Tensor:
    """The matrix that the linear multiplies with; for a reparametrized one, with its state as it is."""
    if not parametrize.is_parametrized(linear, "weight"):
        return linear.get_parameter("weight")
    parametrizations = linear.get_submodule("parametrizations.weight")
    training = parametrizations.training
    parametrizations.eval()  # in training, a power iteration would update its vectors
    try:
        weight: Tensor = linear.weight  # type: ignore[assignment]
        return weight
    finally:
        parametrizations.train(training)


def trained_weight(linear: nn.Module) -> Tensor:
    """What the optimizer changes: the weight, or what a reparametrized one is made from."""
    if parametrize.is_parametrized(linear, "weight"):
        return linear.get_parameter("parametrizations.weight.original")
    return linear.get_parameter("weight")
