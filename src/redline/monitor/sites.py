"""The places in a block that taps look at, by the names that metrics and configurations give them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Len
from torch import Tensor, nn

from redline.model import Layer, MappedModel, Output
from redline.monitor.tap import Tap

# What a tap may be told.
Linears = Annotated[Sequence[Literal["qkv", "proj", "fc1", "fc2"]], Len(1)]
Outputs = Annotated[Sequence[Literal["qkv", "proj", "fc1", "fc2", "q", "k", "v"]], Len(1)]
Activations = Annotated[
    Sequence[Literal["qkv", "proj", "fc1", "fc2", "q", "k", "v", "block_in", "residual"]], Len(1)
]
Statistics = Annotated[Sequence[Literal["norm", "rms"]], Len(1)]

Place = tuple[str, int]  # a site and its layer


def outputs(model: MappedModel, sites: Sequence[str]) -> Iterator[tuple[Place, Output]]:
    """Every place, and what gives its output. Raises UserError for a site that the model lacks."""
    for number, layer in enumerate(model.site_map.layers):
        for site in sites:
            yield (site, number), layer.output(site)


def on_activations(
    tap: Tap, model: MappedModel, sites: Sequence[str], see: Callable[[Place, Tensor], None]
) -> None:
    """While the tap is active, call ``see`` with the place and its tensor, (B,T,C). Raises UserError for a
    site that the model lacks.
    """
    for number, layer in enumerate(model.site_map.layers):
        for site in sites:
            _hook(tap, layer, (site, number), see)


def _hook(tap: Tap, layer: Layer, place: Place, see: Callable[[Place, Tensor], None]) -> None:
    def see_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if tap.active:
            see(place, inputs[0].detach())

    def see_output(module: nn.Module, inputs: tuple[Tensor, ...], output_BTC: Tensor) -> None:
        if tap.active:
            see(place, output_BTC.detach())

    site, _ = place
    if site == "block_in":
        layer.block.register_forward_pre_hook(see_input)
    elif site == "residual":
        layer.block.register_forward_hook(see_output)
    else:
        _hook_linears(tap, layer.output(site), lambda x_BTC: see(place, x_BTC))


def _hook_linears(tap: Tap, output: Output, see: Callable[[Tensor], None]) -> None:
    there: dict[int, Tensor] = {}  # of the linears that have been called in this forward

    def gather(number: int, x_BTC: Tensor) -> None:
        there[number] = x_BTC
        if len(there) == len(output.linears):
            see(output.of(x_BTC) if len(there) == 1 else torch.cat([there[its] for its in sorted(there)], -1))
            there.clear()

    for number, linear in enumerate(output.linears):

        def see_output(
            module: nn.Module, inputs: tuple[Tensor, ...], output_BTC: Tensor, number: int = number
        ) -> None:
            if tap.active:
                gather(number, output_BTC.detach())

        linear.register_forward_hook(see_output)
