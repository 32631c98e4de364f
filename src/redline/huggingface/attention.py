"""Attention as transformers lets anyone compute it: here with the sites of a norm strategy."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from redline.errors import UserError
from redline.model.attention import ScaledDotProduct

NAME = "redline"


def register() -> None:
    """Make it known to transformers as ``attn_implementation=redline``, with the masks of its own `sdpa`."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


class Heads(nn.Module):
    """What an attention module of theirs is given of ours: registered as its ``redline``."""

    def __init__(self, inner: ScaledDotProduct, qk_weight: nn.Module, scaling: float) -> None:
        super().__init__()
        self.inner, self.qk_weight, self.scaling = inner, qk_weight, scaling


def attend(
    module: Any,
    q_BHTK: Tensor,
    k_BGTK: Tensor,
    v_BGTK: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """(B,T,H,K). A key head is for H / G query heads that follow each other."""
    heads: Heads = module.redline
    if scaling is not None and not math.isclose(scaling, heads.scaling):
        raise UserError(f"sites.scaling={heads.scaling}: the model scales by {scaling}; allowed: that")
    shared = q_BHTK.shape[1] // k_BGTK.shape[1]
    k_BHTK, v_BHTK = (its.repeat_interleave(shared, 1) if shared > 1 else its for its in (k_BGTK, v_BGTK))
    if torch.is_autocast_enabled(q_BHTK.device.type):
        # A norm of q or k gives fp32 under autocast; the products are meant to be in its dtype.
        dtype = torch.get_autocast_dtype(q_BHTK.device.type)
        q_BHTK, k_BHTK, v_BHTK = q_BHTK.to(dtype), k_BHTK.to(dtype), v_BHTK.to(dtype)
    plain = attention_mask is None
    mask_TT = _causal(q_BHTK.shape[2], q_BHTK.device) if attention_mask is None else _added(attention_mask)
    q_BHTK = heads.qk_weight(q_BHTK, k_BHTK, mask_TT, heads.inner.scale)
    heads.inner.dropout = dropout
    y_BHTK = heads.inner(q_BHTK, k_BHTK, v_BHTK, mask_TT, plain=plain)
    return y_BHTK.transpose(1, 2).contiguous(), None


def _causal(length: int, device: torch.device) -> Tensor:
    return torch.full((length, length), -math.inf, device=device).triu(1)


def _added(mask: Tensor) -> Tensor:
    """(T,T) to be added to scores, of one that is the same for all sequences and heads."""
    mask_TT = mask[0, 0]
    if mask_TT.dtype != torch.bool:
        return mask_TT
    return torch.zeros_like(mask_TT, dtype=torch.float32).masked_fill(~mask_TT, -math.inf)
