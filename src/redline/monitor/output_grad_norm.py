"""How large the gradients of the linears' outputs are."""

from typing import Any

import torch
from torch import Tensor, nn

from redline.metrics import of_layer
from redline.model import Transformer
from redline.monitor.sites import Outputs, Place, outputs, third
from redline.monitor.tap import Step, Tap
from redline.monitor.weights import trained_weight


class _Probe(torch.autograd.Function):
    """The identity of ``x``; the norm of the gradient that passes becomes the gradient of ``probe``.

    ``part`` is the third of the channels that counts; None: all of them.

    Not a tensor's hook: `torch.compile` breaks its graph there, and traces this.
    """

    @staticmethod
    def forward(ctx: Any, x_BTC: Tensor, probe: Tensor, part: int | None) -> Tensor:
        ctx.part = part
        return x_BTC.view_as(x_BTC)

    @staticmethod
    def backward(ctx: Any, grad_BTC: Tensor) -> tuple[Tensor, Tensor, None]:
        seen_BTC = third(grad_BTC, ctx.part)
        return grad_BTC, torch.linalg.vector_norm(seen_BTC, dim=-1, dtype=torch.float32).mean(), None


class OutputGradNorm(Tap):
    """``output_grad_norm/<site>/layer_<l>``: the mean over tokens of the L2 norm over channels of the loss'
    gradient with respect to a linear's output, before clipping. Sites are those outputs, and ``q``, ``k``,
    ``v``, the parts of QKV's.
    """

    def __init__(self, sites: Outputs) -> None:
        super().__init__()
        self.sites = list(sites)
        self.probes: dict[Place, Tensor] = {}

    def attach(self, model: Transformer) -> None:
        for place, linear, part in outputs(model, self.sites):
            self.probes[place] = torch.zeros((), device=trained_weight(linear).device, requires_grad=True)
            self._hook(linear, self.probes[place], part)

    def _hook(self, linear: nn.Linear, probe: Tensor, part: int | None) -> None:
        def let_through(module: nn.Module, inputs: tuple[Tensor, ...], output_BTC: Tensor) -> Tensor | None:
            return _Probe.apply(output_BTC, probe, part) if self.active else None

        linear.register_forward_hook(let_through)

    def before_update(self, step: Step) -> None:
        for place, probe in self.probes.items():
            if probe.grad is not None:
                self.values[of_layer("output_grad_norm", *place)] = probe.grad
                probe.grad = None
