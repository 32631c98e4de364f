"""How large the gradients of the linears' outputs are."""

from typing import Any

import torch
from torch import Tensor, nn

from redline import over_ranks
from redline.metrics import of_layer
from redline.model import MappedModel, Output
from redline.monitor.sites import Outputs, Place, outputs
from redline.monitor.tap import Step, Tap
from redline.monitor.weights import root_of_squares, trained_weight


class _Probe(torch.autograd.Function):
    """The identity of ``x``; the norm of the gradient that passes becomes the gradient of ``probe``.

    ``output`` says which of the channels count.

    Not a tensor's hook: `torch.compile` breaks its graph there, and traces this.
    """

    @staticmethod
    def forward(ctx: Any, x_BTC: Tensor, probe: Tensor, output: Output) -> Tensor:
        ctx.output = output
        return x_BTC.view_as(x_BTC)

    @staticmethod
    def backward(ctx: Any, grad_BTC: Tensor) -> tuple[Tensor, Tensor, None]:
        seen_BTC = ctx.output.of(grad_BTC)
        return grad_BTC, torch.linalg.vector_norm(seen_BTC, dim=-1, dtype=torch.float32).mean(), None


class OutputGradNorm(Tap):
    """``output_grad_norm/<site>/layer_<l>``: the mean over tokens of the L2 norm over channels of the loss'
    gradient with respect to a linear's output, before clipping; of several linears at a site the root of the
    sum of these means' squares. Sites are those outputs, and ``q``, ``k``, ``v``, the parts of QKV's.
    """

    def __init__(self, sites: Outputs) -> None:
        super().__init__()
        self.sites = list(sites)
        self.probes: dict[Place, list[Tensor]] = {}

    def attach(self, model: MappedModel) -> None:
        for place, output in outputs(model, self.sites):
            self.probes[place] = [self._hook(linear, output) for linear in output.linears]

    def _hook(self, linear: nn.Module, output: Output) -> Tensor:
        probe = torch.zeros((), device=trained_weight(linear).device, requires_grad=True)

        def let_through(module: nn.Module, inputs: tuple[Tensor, ...], output_BTC: Tensor) -> Tensor | None:
            return _Probe.apply(output_BTC, probe, output) if self.active else None

        linear.register_forward_hook(let_through)
        return probe

    def before_update(self, step: Step) -> None:
        for place, probes in self.probes.items():
            norms = [probe.grad for probe in probes if probe.grad is not None]
            if norms:
                # The loss is the mean of the ranks' losses, so each rank's gradient counts for its share.
                norm = root_of_squares(norms) / over_ranks.size()
                self.values[of_layer("output_grad_norm", *place)] = norm
            for probe in probes:
                probe.grad = None
