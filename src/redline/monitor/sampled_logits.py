"""Attention logits of a few queries, computed beside the model: the fused path stores none."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from redline.errors import UserError
from redline.model import MappedModel
from redline.model.attention import ScaledDotProduct
from redline.monitor.tap import Tap


@dataclass
class Sample:
    """The sampled queries (S) of the first sequences (N) of a batch, and all keys (T) of those, of H heads.

    A logit is the input of the site `score`: q·k times the scale, in fp32, before any cap. Heads are folded
    into the batch: M = N·H, heads last.
    """

    q_MSK: Tensor
    k_MKT: Tensor
    mask_ST: Tensor  # to be added to the logits
    scale: float
    heads: int

    def logits(self) -> Tensor:
        """(N,H,S,T), not masked."""
        M, S, _ = self.q_MSK.shape
        return torch.bmm(self.q_MSK, self.k_MKT).mul_(self.scale).view(M // self.heads, self.heads, S, -1)

    def masked_logits(self) -> Tensor:
        """(M,S,T), minus infinity where a query may not look."""
        return torch.baddbmm(self.mask_ST, self.q_MSK, self.k_MKT, alpha=self.scale)


See = Callable[[int, ScaledDotProduct, Sample], None]  # with the layer and the module that attends


def check_sample(queries: int, sequences: int) -> None:
    """Raises ValueError."""
    if sequences > queries:
        raise ValueError(f"sequences={sequences}: allowed: from 1 to queries={queries}")


def on_logits(tap: Tap, model: MappedModel, queries: int, sequences: int, see: See) -> None:
    """While the tap is active, call ``see`` for every layer with a sample of at most ``queries`` queries.

    They are those of the batch's first ``sequences`` sequences, spread evenly over their tokens, the last
    token among them; queries of one sequence share its keys.
    """
    for layer, inner in enumerate(attentions(model)):
        _hook(tap, inner, layer, queries, sequences, see)


def attentions(model: MappedModel) -> Iterator[ScaledDotProduct]:
    """Of every layer the module that attends. Raises UserError where the model shows none."""
    for layer in model.site_map.layers:
        if layer.attention is None:
            raise UserError(
                "sites: this model shows no attention; allowed: no tap and no loss of its logits, such as "
                "max_logit and attention_entropy"
            )
        yield layer.attention


def _hook(tap: Tap, inner: ScaledDotProduct, layer: int, queries: int, sequences: int, see: See) -> None:
    def sample(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if tap.active:
            detached = tuple(each.detach() for each in inputs)
            with in_fp32(inputs[0].device.type):
                see(layer, inner, sample_of(inner, detached, queries, sequences))

    inner.register_forward_pre_hook(sample)


def sample_of(
    inner: ScaledDotProduct, inputs: tuple[Tensor, ...], queries: int | None, sequences: int | None
) -> Sample:
    """From what ``inner`` is given; None: all queries of a sequence, all sequences of the batch."""
    q_BHTK, k_BHTK, _, mask_TT = inputs
    B, H, T, K = q_BHTK.shape
    N = B if sequences is None else min(B, sequences)
    S = T if queries is None else min(T, queries // N)
    tokens = slice(T - 1 - (S - 1) * (T // S), T, T // S)
    # Heads folded into the batch by hand: a matmul of four axes takes twice as long on a CPU.
    q_MSK = q_BHTK[:N, :, tokens].reshape(N * H, S, K).float()
    k_MKT = k_BHTK[:N].reshape(N * H, T, K).float().transpose(1, 2)
    return Sample(q_MSK, k_MKT, mask_TT[tokens].float(), inner.scale, H)


def entropies(inner: ScaledDotProduct, sample: Sample) -> Tensor:
    """(H,) nats, the mean over the sampled queries, of what the site `softmax` gives, before the site `prob`.

    Where that does not sum to 1 over the tokens, it is the entropy of each token's share of the sum, however
    small the sum; 0 for a query that attends to nothing.
    """
    prob_NHST = inner.softmax(inner.score(sample.logits()) + sample.mask_ST)
    sum_NHS1 = prob_NHST.sum(-1, keepdim=True)
    share_NHST = prob_NHST / sum_NHS1.masked_fill(sum_NHS1 == 0, 1.0)
    # 0 * log(0) is 0, and so is its gradient, which torch's own entr makes a NaN.
    log_NHST = share_NHST.masked_fill(share_NHST == 0, 1.0).log()
    return -(share_NHST * log_NHST).sum(-1).mean((0, 2))


def in_fp32(device: str) -> AbstractContextManager[None]:
    """Autocast would take the products in bf16, where a logit of 1000 is known to 4 only."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
