"""The linears of a transformers model. A weight is (outputs, inputs); in GPT-2 it is (inputs, outputs)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from redline import over_ranks
from redline.huggingface.parts import Split
from redline.model import Output


def _inputs_first(linear: nn.Module) -> bool:
    return any(its.__name__ == "Conv1D" for its in type(linear).__mro__)


def inputs_and_outputs(linear: Any) -> tuple[int, int]:
    first, second = linear.weight.shape
    return (first, second) if _inputs_first(linear) else (second, first)


def stream_axis(linear: nn.Module, writes: bool) -> int:
    """Which axis of the weight is the residual stream's, of a linear that reads it or writes to it."""
    return int(writes == _inputs_first(linear))


def outputs(linears: Mapping[str, list[Any]], splits: Sequence[Split]) -> dict[str, Output]:
    """What a block's places put out: see `Layer.outputs`. ``linears``: by name; one for qkv, or three."""
    found = {name: Output((*its,)) for name, its in linears.items()}
    if "qkv" not in found:
        return {"qkv": Output(tuple(its for site in ("q", "k", "v") for its in linears[site])), **found}
    parts = {site: partial(splits[0].flat, number) for number, site in enumerate(("q", "k", "v"))}
    return {**found, **{site: Output((*linears["qkv"],), part) for site, part in parts.items()}}


def scale_heads(linears: Sequence[Any], splits: Sequence[Split], of_q_H: Tensor, of_k_G: Tensor) -> None:
    """Multiply what makes q and k, weights and biases: see `Layer.scale_heads`."""
    factors = iter([of_q_H, of_k_G, torch.ones_like(of_k_G)])
    for linear, split in zip(linears, splits, strict=True):
        channels = inputs_and_outputs(linear)[1] // sum(split.heads)
        of_heads = [next(factors)[:, None].expand(-1, channels) for _ in split.heads]
        factor_C = split.joined(of_heads)
        for tensor in (linear.weight.data, None if linear.bias is None else linear.bias.data):
            if tensor is not None:
                column = tensor.ndim > 1 and not _inputs_first(linear)
                factor = (factor_C[:, None] if column else factor_C).expand(tensor.shape)
                over_ranks.shard(tensor).mul_(over_ranks.shard_like(factor, tensor))
