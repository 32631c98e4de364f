"""The places in a block that taps look at, by the names that metrics and configurations give them."""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from redline.errors import UserError
from redline.metrics import NORM, RMS
from redline.model import Transformer
from redline.monitor.tap import Tap

LINEARS = {"qkv": "attention.qkv", "proj": "attention.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
_QKV_PARTS = ("q", "k", "v")  # of the QKV linear's output, before any norm of theirs
OUTPUTS = (*LINEARS, *_QKV_PARTS)
ACTIVATIONS = (*OUTPUTS, "block_in", "residual")
_STATISTICS = (NORM, RMS)

Place = tuple[str, int]  # a site and its layer


def checked(sites: Sequence[str], allowed: Sequence[str]) -> list[str]:
    """The sites as a list. Raises UserError for an unknown one; the caller adds the key."""
    if not sites:
        raise UserError(f"sites=[]: allowed: some of {', '.join(allowed)}")
    for site in sites:
        if site not in allowed:
            raise UserError(f"sites={site}: allowed: {', '.join(allowed)}")
    return list(sites)


def checked_statistics(statistics: Sequence[str]) -> list[str]:
    """The statistics as a list. Raises UserError as `checked` does."""
    for statistic in statistics:
        if statistic not in _STATISTICS:
            raise UserError(f"statistics={statistic}: allowed: {', '.join(_STATISTICS)}")
    return list(statistics)


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
