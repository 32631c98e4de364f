"""How large attention logits become: past 1e4 every run of Wortsman et al. (2023) diverged."""

import torch
from torch import Tensor

from redline.bounds import Count
from redline.metrics import MAX_LOGIT
from redline.model import MappedModel
from redline.model.attention import ScaledDotProduct
from redline.monitor.sampled_logits import Sample, check_sample, on_logits
from redline.monitor.tap import Step, Tap


class MaxLogit(Tap):
    """``attention/max_logit``: the largest attention logit of the sampled queries, over all layers and heads;
    with ``per_head`` also ``attention/max_logit/layer_<l>/head_<h>``.
    """

    across = "max"

    def __init__(self, queries: Count, sequences: Count, per_head: bool) -> None:
        super().__init__()
        check_sample(queries, sequences)
        self.queries, self.sequences, self.per_head = queries, sequences, per_head
        self.seen: dict[int, Tensor] = {}  # (N,H) each

    def attach(self, model: MappedModel) -> None:
        on_logits(self, model, self.queries, self.sequences, self._see)

    def _see(self, layer: int, inner: ScaledDotProduct, sample: Sample) -> None:
        self.seen[layer] = sample.masked_logits().amax((1, 2)).view(-1, sample.heads)

    def after_update(self, step: Step) -> None:
        max_LH = torch.stack(list(self.seen.values())).amax(1)
        self.values[MAX_LOGIT] = max_LH.amax()
        if self.per_head:
            for layer, max_H in zip(self.seen, max_LH, strict=True):
                for head, logit in enumerate(max_H):
                    self.values[f"{MAX_LOGIT}/layer_{layer:02d}/head_{head:02d}"] = logit
        self.seen.clear()
