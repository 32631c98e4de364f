"""The places in a block that taps look at, by the names that metrics and configurations give them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal

from annotated_types import Len
from torch import Tensor, nn

from redline.model import LINEARS, Transformer
from redline.monitor.tap import Tap

_QKV_PARTS = ("q", "k", "v")  # of the QKV linear's output, before any norm of theirs

# What a tap may be told.
Linears = Annotated[Sequence[Literal["qkv", "proj", "fc1", "fc2"]], Len(1)]
Outputs = Annotated[Sequence[Literal["qkv", "proj", "fc1", "fc2", "q", "k", "v"]], Len(1)]
Activations = Annotated[
    Sequence[Literal["qkv", "proj", "fc1", "fc2", "q", "k", "v", "block_in", "residual"]], Len(1)
]
Statistics = Annotated[Sequence[Literal["norm", "rms"]], Len(1)]

Place = tuple[str, int]  # a site and its layer


def linears(model: Transformer, sites: Sequence[str]) -> Iterator[tuple[Place, nn.Linear]]:
    """Every place, and the linear there."""
    for layer, block in enumerate(model.blocks):
        for site in sites:
            linear = block.get_submodule(LINEARS[site])
            assert isinstance(linear, nn.Linear)
            yield (site, layer), linear


def outputs(model: Transformer, sites: Sequence[str]) -> Iterator[tuple[Place, nn.Linear, int | None]]:
    """Every place, the linear that gives it, and which third of its output that is (None: all)."""
    for layer, block in enumerate(model.blocks):
        for site in sites:
            part = _part(site)
            linear = block.get_submodule(LINEARS[site if part is None else "qkv"])
            assert isinstance(linear, nn.Linear)
            yield (site, layer), linear, part


def on_activations(
    tap: Tap, model: Transformer, sites: Sequence[str], see: Callable[[Place, Tensor], None]
) -> None:
    """While the tap is active, call ``see`` with the place and its tensor, (B,T,C)."""
    for layer, block in enumerate(model.blocks):
        for site in sites:
            _hook(tap, block, (site, layer), see)


def third(x_BTC: Tensor, part: int | None) -> Tensor:
    """That part of QKV's output, or all of it."""
    return x_BTC if part is None else x_BTC.chunk(3, -1)[part]


def _part(site: str) -> int | None:
    return _QKV_PARTS.index(site) if site in _QKV_PARTS else None


def _hook(tap: Tap, block: nn.Module, place: Place, see: Callable[[Place, Tensor], None]) -> None:
    site, _ = place
    part = _part(site)

    def see_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if tap.active:
            see(place, inputs[0].detach())

    def see_output(module: nn.Module, inputs: tuple[Tensor, ...], output_BTC: Tensor) -> None:
        if tap.active:
            see(place, third(output_BTC.detach(), part))

    if site == "block_in":
        block.register_forward_pre_hook(see_input)
    elif site == "residual":
        block.register_forward_hook(see_output)
    else:
        block.get_submodule(LINEARS[site if part is None else "qkv"]).register_forward_hook(see_output)
