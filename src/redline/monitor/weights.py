"""The weight of a linear that may be reparametrized. Then reading ``linear.weight`` runs the parametrization
and, in training, updates its buffers. Taps use these functions, which do not.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


@torch.no_grad()
def effective_weight(linear: nn.Linear) -> Tensor:
    """The matrix that the linear multiplies with; for a reparametrized one, with its state as it is."""
    if not parametrize.is_parametrized(linear, "weight"):
        return linear.weight
    parametrizations = linear.get_submodule("parametrizations.weight")
    training = parametrizations.training
    parametrizations.eval()  # in training, a power iteration would update its vectors
    try:
        return linear.weight
    finally:
        parametrizations.train(training)


def trained_weight(linear: nn.Linear) -> Tensor:
    """What the optimizer changes: the weight, or what a reparametrized one is made from."""
    if parametrize.is_parametrized(linear, "weight"):
        return linear.get_parameter("parametrizations.weight.original")
    return linear.weight
