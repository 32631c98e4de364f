"""Initial weights, by role: functions of a matrix of the model and of the number of its layers.

They are given the weights of every linear and embedding, in the model's order. Other parameters, such as
gains, begin as their transforms say.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated

from annotated_types import Gt, Le
from torch import Tensor, nn

from redline.model.roles import Named
from redline.model.site_map import Linear

Init = Callable[[Named, int], None]
Std = Annotated[float, Gt(0), Le(100)]
Cut = Annotated[float, Gt(0), Le(100)]  # in standard deviations


def gpt2(named: Named, num_layers: int, *, std: Std) -> None:
    """Normal; Proj and FC2, which feed the residual sum, smaller by sqrt(2 * layers) (GPT-2, section 2.3)."""
    into_residual = named.linear in (Linear.proj, Linear.fc2)
    nn.init.normal_(named.parameter, std=std / math.sqrt(2 * num_layers) if into_residual else std)


def small_embedding(named: Named, num_layers: int, *, embedding: Std, std: Std) -> None:
    """Embeddings uniform between ``-embedding`` and ``embedding``, the rest as `gpt2` (Peng Bo 2021,
    SmallInitEmb).
    """
    if named.role == "embedding":
        nn.init.uniform_(named.parameter, -embedding, embedding)
    else:
        gpt2(named, num_layers, std=std)


def xavier(named: Named, num_layers: int, *, gain: Std) -> None:
    """Uniform, with std gain * sqrt(2 / (fan in + fan out)); Q, K and V are a matrix each (Glorot and Bengio
    2010; Vaswani et al. 2017).
    """
    for matrix in _matrices(named):
        nn.init.xavier_uniform_(matrix, gain)


def kaiming(named: Named, num_layers: int) -> None:
    """Normal with std sqrt(2 / fan in) (He et al. 2015); an embedding's fan in is the width."""
    nn.init.kaiming_normal_(named.parameter, mode="fan_in", nonlinearity="relu")


def truncated(named: Named, num_layers: int, *, std: Std, cut: Cut) -> None:
    """Normal, cut off at ``cut`` standard deviations."""
    nn.init.trunc_normal_(named.parameter, std=std, a=-cut * std, b=cut * std)


def truncated_fan_in(named: Named, num_layers: int, *, cut: Cut) -> None:
    """Normal with std 1 / sqrt(fan in), cut off likewise; an embedding's fan in is the width."""
    truncated(named, num_layers, std=1 / math.sqrt(named.parameter.shape[1]), cut=cut)


def deepnet(named: Named, num_layers: int) -> None:
    """Xavier's normal with gain beta = (8 * layers)^(-1/4) for V, Proj, FC1 and FC2, and 1 for Q and K (Wang
    et al. 2022, arXiv 2203.00555, figure 2, decoder only). Embedding and head: normal with std width^(-1/2),
    which the paper leaves open, as in its authors' code.
    """
    if named.role != "hidden":
        nn.init.normal_(named.parameter, std=named.parameter.shape[1] ** -0.5)
        return
    beta = (8 * num_layers) ** -0.25
    gains = {Linear.qkv: (1.0, 1.0, beta), None: (1.0,)}.get(named.linear, (beta,))
    for matrix, gain in zip(_matrices(named), gains, strict=True):
        nn.init.xavier_normal_(matrix, gain)


def _matrices(named: Named) -> Sequence[Tensor]:
    """Those of Q, K and V, which are stored as one; or the one that it is."""
    weight = named.parameter.detach()
    return weight.chunk(3) if named.linear is Linear.qkv else (weight,)
