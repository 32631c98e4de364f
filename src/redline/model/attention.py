"""Causal self-attention: one formula, two ways to compute it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redline import over_ranks
from redline.model.norm_strategy import NormStrategy, Softmax
from redline.model.paths import explicit_is_faster
from redline.model.positions import Learned, Rope
from redline.model.transforms import Scale


def fused(
    q_BHTK: Tensor,
    k_BHTK: Tensor,
    v_BHTK: Tensor,
    scale: float,
    dropout: float,
    mask_TT: Tensor | None = None,
) -> Tensor:
    """Torch's own kernel: does not store the (B,H,T,T) scores. ``mask_TT``: None for the plain causal one."""
    return F.scaled_dot_product_attention(
        q_BHTK,
        k_BHTK,
        v_BHTK,
        attn_mask=None if mask_TT is None else mask_TT.to(q_BHTK.dtype),
        dropout_p=dropout,
        is_causal=mask_TT is None,
        scale=scale,
    )


def explicit(
    q_BHTK: Tensor,
    k_BHTK: Tensor,
    v_BHTK: Tensor,
    scale: float,
    dropout: float,
    mask_TT: Tensor,
    score: nn.Module,
    softmax: nn.Module,
    prob: nn.Module,
) -> Tensor:
    """Written out, with a transform on the scaled scores, one from there to probabilities, and one on these.

    ``mask_TT`` is added after ``score``: a cap on masked scores would let queries see the future.
    """
    B, H, T, K = q_BHTK.shape
    q_NTK, k_NKT = q_BHTK.reshape(B * H, T, K), k_BHTK.reshape(B * H, T, K).transpose(1, 2)
    if isinstance(score, nn.Identity):
        score_NTT = torch.baddbmm(mask_TT.to(q_BHTK.dtype), q_NTK, k_NKT, alpha=scale)
        score_BHTT = score_NTT.view(B, H, T, T)
    else:
        score_BHTT = score(torch.bmm(q_NTK, k_NKT).view(B, H, T, T) * scale) + mask_TT
    prob_BHTT = prob(softmax(score_BHTT))
    if dropout:
        prob_BHTT = F.dropout(prob_BHTT, dropout)
    prob_NTT = prob_BHTT.to(v_BHTK.dtype).reshape(B * H, T, T)
    return torch.bmm(prob_NTT, v_BHTK.reshape(B * H, T, K)).view(B, H, T, K)


class ScaledDotProduct(nn.Module):
    """The scores, their softmax, and the weighted sum of the values. Three times (B,H,T,K) to one.

    Its inputs are q, k and v after norm and rotation, on either path: a hook here sees them.
    """

    def __init__(self, strategy: NormStrategy, dropout: float, path: str, scale: float | None = None) -> None:
        """``scale``: of the scores; None for 1/sqrt(K)."""
        super().__init__()
        self.score, self.softmax, self.prob = map(strategy.at, ("score", "softmax", "prob"))
        self.scale = 1 / math.sqrt(strategy.width // strategy.num_heads) if scale is None else scale
        if isinstance(self.score, Scale):
            self.scale *= self.score.factor
            self.score = nn.Identity()
        self.fusable = (
            isinstance(self.score, nn.Identity)
            and isinstance(self.softmax, Softmax)
            and isinstance(self.prob, nn.Identity)
        )
        self.dropout = dropout
        self.path = path

    def takes_fused(self, q_BHTK: Tensor) -> bool:
        if not self.fusable or self.path == "explicit":
            return False
        return self.path == "fused" or not explicit_is_faster(
            q_BHTK.device.type, q_BHTK.dtype, q_BHTK.shape[-2]
        )

    def forward(
        self, q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, mask_TT: Tensor, plain: bool = True
    ) -> Tensor:
        """``plain``: the mask is the causal one, and nothing more."""
        dropout = self.dropout if self.training else 0.0
        if self.takes_fused(q_BHTK):
            return fused(q_BHTK, k_BHTK, v_BHTK, self.scale, dropout, None if plain else mask_TT)
        transforms = (self.score, self.softmax, self.prob)
        return explicit(q_BHTK, k_BHTK, v_BHTK, self.scale, dropout, mask_TT, *transforms)


class Attention(nn.Module):
    """QKV linear, the strategy's sites on the way, Proj. (B,T,D) to (B,T,D).

    ``path`` is ``fused``, ``explicit`` or ``auto``: the faster one on the device at hand. A strategy
    with a transform that the fused kernel cannot take is computed explicitly whatever ``path`` says.
    """

    def __init__(self, strategy: NormStrategy, positions: Rope | Learned, dropout: float, path: str) -> None:
        super().__init__()
        width, self.num_heads = strategy.width, strategy.num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.q, self.k, self.v = strategy.at("q"), strategy.at("k"), strategy.at("v")
        self.qk_weight = strategy.at("qk_weight")
        self.inner = ScaledDotProduct(strategy, dropout, path)
        self.gate = strategy.at("gate")
        self.proj_in, self.proj_out = strategy.at("proj_in"), strategy.at("proj_out")
        self.positions = positions

    def scale_heads(self, of_q_H: Tensor, of_k_H: Tensor) -> None:
        """Multiply the weights that make q and k, by head."""
        weight, of_v_H = self.qkv.weight.data, torch.ones_like(of_q_H)
        of_row_R = torch.cat([of_q_H, of_k_H, of_v_H]).repeat_interleave(len(weight) // (3 * self.num_heads))
        over_ranks.shard(weight).mul_(over_ranks.shard_like(of_row_R[:, None], weight))

    def forward(self, x_BTD: Tensor, mask_TT: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        qkv_3BHTK = self.qkv(x_BTD).view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q_BHTK, k_BHTK, v_BHTK = qkv_3BHTK.unbind(0)
        q_BHTK = self.positions.rotate(self.q(q_BHTK))
        k_BHTK = self.positions.rotate(self.k(k_BHTK))
        v_BHTK = self.v(v_BHTK)
        if torch.is_autocast_enabled(x_BTD.device.type):
            # A LayerNorm gives fp32 under autocast; the products are meant to be in its dtype.
            dtype = torch.get_autocast_dtype(x_BTD.device.type)
            q_BHTK, k_BHTK, v_BHTK = q_BHTK.to(dtype), k_BHTK.to(dtype), v_BHTK.to(dtype)
        mask_TT = mask_TT[:T, :T]
        q_BHTK = self.qk_weight(q_BHTK, k_BHTK, mask_TT, self.inner.scale)
        y_BHTK = self.inner(q_BHTK, k_BHTK, v_BHTK, mask_TT)
        y_BTD = self.gate(y_BHTK.transpose(1, 2).reshape(B, T, D), x_BTD)
        return self.proj_out(self.proj(self.proj_in(y_BTD)))
