"""The paper's curves: how large the outputs of a block's linears are."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from redline.errors import UserError
from redline.monitor.tap import Tap

_PATHS = {"qkv": "attention.qkv", "proj": "attention.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


class OutputNorm(Tap):
    """Mean over tokens of the L2 norm of each linear's output, a metric ``norm/<site>/layer_<l>`` each."""

    def __init__(self, sites: Sequence[str]) -> None:
        super().__init__()
        unknown = [site for site in sites if site not in _PATHS]
        if unknown:
            raise UserError(f"monitor.taps.output_norm.sites={unknown[0]}: allowed: {', '.join(_PATHS)}")
        self.sites = list(sites)

    def attach(self, blocks: Sequence[nn.Module]) -> None:
        for layer, block in enumerate(blocks):
            for site in self.sites:
                self._hook(block.get_submodule(_PATHS[site]), f"norm/{site}/layer_{layer:02d}")

    def _hook(self, linear: nn.Module, name: str) -> None:
        def read(module: nn.Module, inputs: tuple[Tensor, ...], output_BTC: Tensor) -> None:
            if self.active:
                norm = torch.linalg.vector_norm(output_BTC.detach(), dim=-1, dtype=torch.float32)
                self.values[name] = norm.mean()

        linear.register_forward_hook(read)
