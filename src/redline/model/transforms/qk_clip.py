from collections.abc import Callable

import torch
from torch import Tensor, nn

from redline import over_ranks
from redline.bounds import Positive
from redline.model.norm_strategy import Site

_AT_ONCE = 2**24  # logits in memory


class QKClip(nn.Module):
    """After each step of the optimizer: W_q and W_k of a head times ``sqrt(tau / S)`` where S, its largest
    logit in the step's batch, is above ``tau`` (Kimi K2: Kimi Team 2025, arXiv 2507.20534).

    A logit is q k^T times the scale, before any cap. A norm at `q` or `k` undoes the clip.
    """

    def __init__(self, site: Site, tau: Positive) -> None:
        super().__init__()
        site.require("QKClip", "BHTK*BHTK")
        self.num_heads, self.tau = site.num_heads, tau
        self.largest_H: Tensor | None = None  # since the last step; accumulation has several batches

    def forward(self, q_BHTK: Tensor, k_BHTK: Tensor, mask_TT: Tensor, scale: float) -> Tensor:
        """Returns ``q_BHTK`` as it is."""
        if self.training and torch.is_grad_enabled():
            largest_H = largest_logits(q_BHTK.detach(), k_BHTK.detach(), mask_TT, scale)
            seen_H = self.largest_H
            self.largest_H = largest_H if seen_H is None else torch.maximum(seen_H, largest_H)
        return q_BHTK

    @torch.no_grad()
    def after_step(self, key_heads: int, scale: Callable[[Tensor, Tensor], None], updated: Tensor) -> Tensor:
        """Clips by ``scale``, which multiplies what makes q by factors (H,) and what makes k by factors (G,),
        of G ``key_heads``. Returns the number of heads clipped, a scalar. Where several query heads share a
        key head, that one takes the root of the smallest factor of theirs, and each the rest of its own.

        ``updated``: whether the optimizer has changed the weights in this step, a scalar; if not, nothing is
        clipped. Nor is a head whose largest logit is not finite: its weights would be zero for ever.
        """
        assert self.largest_H is not None
        largest_H, self.largest_H = over_ranks.largest(self.largest_H), None
        clipped_H = (largest_H > self.tau) & largest_H.isfinite() & updated
        factor_H = torch.where(clipped_H, (self.tau / largest_H).sqrt(), 1.0)
        of_k_G = factor_H.view(key_heads, -1).amin(1)
        scale(factor_H.square() / of_k_G.repeat_interleave(self.num_heads // key_heads), of_k_G)
        return clipped_H.sum().float()


def largest_logits(q_BHTK: Tensor, k_BHTK: Tensor, mask_TT: Tensor, scale: float) -> Tensor:
    """(H,) in fp32: each head's largest logit that is not masked, over all sequences and queries."""
    B, H, T, K = q_BHTK.shape
    q_NTK, k_NKT = q_BHTK.reshape(B * H, T, K).float(), k_BHTK.reshape(B * H, T, K).float().transpose(1, 2)
    rows = max(1, _AT_ONCE // (B * H * T))
    # Autocast would take the products in bf16, where a logit of 1000 is known to 4 only.
    with torch.autocast(q_BHTK.device.type, enabled=False):
        found = [
            torch.baddbmm(
                mask_TT[start : start + rows, : start + rows].float(),
                q_NTK[:, start : start + rows],
                k_NKT[..., : start + rows],
                alpha=scale,
            ).amax((1, 2))
            for start in range(0, T, rows)
        ]
    return torch.stack(found).amax(0).view(B, H).amax(0)
