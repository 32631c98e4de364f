"""How large the outputs of a model's linears are, whatever the model is."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from redline.metrics import NORM, of_layer
from redline.monitor.tap import Step, Tap

_NUMBER = re.compile(r"\d+")


class LinearNorm(Tap):
    """``norm/<site>/layer_<l>`` of every `torch.nn.Linear`: the mean, over all but the last dimension of its
    output, of the L2 norm over the last one. Of one that is called several times in a step the last call
    counts.

    The site is the linear's path without its last number, with ``_`` for dots, and the layer is that number:
    ``encoder.layers.3.linear1`` is ``encoder_layers_linear1`` in layer 3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norms: dict[str, Tensor] = {}  # by metric

    def attach(self, model: nn.Module) -> None:
        linears = {name: its for name, its in model.named_modules() if isinstance(its, nn.Linear)}
        for name, metric in _metrics(linears).items():
            self._hook(linears[name], metric)

    def _hook(self, linear: nn.Linear, metric: str) -> None:
        def see(module: nn.Module, inputs: object, output: Tensor) -> None:
            if self.active:
                self.norms[metric] = torch.linalg.vector_norm(
                    output.detach(), dim=-1, dtype=torch.float32
                ).mean()

        linear.register_forward_hook(see)

    def after_update(self, step: Step) -> None:
        self.values |= self.norms
        self.norms = {}


def _metrics(linears: Mapping[str, nn.Linear]) -> dict[str, str]:
    """By the linears' paths. Two that would share a name keep their numbers in it."""
    found = {name: _place(name) for name in linears}
    places = list(found.values())
    return {
        name: of_layer(NORM, *(place if places.count(place) == 1 else (_word(name.split(".")), 0)))
        for name, place in found.items()
    }


def _place(name: str) -> tuple[str, int]:
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if _NUMBER.fullmatch(part)]
    if not numbers:
        return _word(parts), 0
    last = numbers[-1]
    return _word(parts[:last] + parts[last + 1 :]), int(parts[last])


def _word(parts: list[str]) -> str:
    return "_".join(parts) or "linear"  # the model itself
