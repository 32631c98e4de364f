"""Attention logits of a few queries, computed beside the model: the fused path never holds any."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from redline.errors import UserError
from redline.model import Transformer
from redline.model.attention import ScaledDotProduct
from redline.monitor.tap import Tap

# Called with the layer, the module that attends, the logits (N,H,S,T) and the mask (S,T) to be added to them.
See = Callable[[int, ScaledDotProduct, Tensor, Tensor], None]


def check_sample(queries: int, sequences: int) -> None:
    """Raises UserError; whoever builds the tap says of which key."""
    if queries < 1:
        raise UserError(f"queries={queries}: allowed: 1 or more")
    if not 1 <= sequences <= queries:
        raise UserError(f"sequences={sequences}: allowed: from 1 to queries={queries}")


def on_logits(tap: Tap, model: Transformer, queries: int, sequences: int, see: See) -> None:
    """While the tap is active, call ``see`` for every layer with the logits of at most ``queries`` queries.

    They are those of the batch's first ``sequences`` sequences (N), spread evenly over their tokens (S), the
    last token among them; queries of one sequence share its keys. A logit is as it enters the site `score`:
    q·k times the scale, in fp32, before any cap and before the mask.
    """
    for layer, block in enumerate(model.blocks):
        inner = block.get_submodule("attention.inner")
        assert isinstance(inner, ScaledDotProduct)
        _hook(tap, inner, layer, queries, sequences, see)


def _hook(tap: Tap, inner: ScaledDotProduct, layer: int, queries: int, sequences: int, see: See) -> None:
    def sample(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not tap.active:
            return
        q_BHTK, k_BHTK, _, mask_TT = inputs
        B, H, T, K = q_BHTK.shape
        N = min(B, sequences)
        S = min(T, queries // N)
        tokens = slice(T - 1 - (S - 1) * (T // S), T, T // S)
        # Autocast would take the products in bf16, where a logit of 1000 is known to 4 only.
        with torch.no_grad(), torch.autocast(q_BHTK.device.type, enabled=False):
            # Heads folded into the batch by hand: a matmul of four axes takes twice as long on a CPU.
            q_MSK = q_BHTK[:N, :, tokens].float().mul(inner.scale).reshape(N * H, S, K)
            k_MKT = k_BHTK[:N].float().reshape(N * H, T, K).transpose(1, 2)
            see(layer, inner, torch.bmm(q_MSK, k_MKT).view(N, H, S, T), mask_TT[tokens])

    inner.register_forward_pre_hook(sample)
