"""The terms that the training loss is the sum of; `conf/loss/` chooses them.

Validation loss, and what the divergence rules see, is always plain cross entropy, so that recipes compare.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor, nn

from redline.bounds import Count, Positive
from redline.errors import UserError
from redline.model import MappedModel, recomputing
from redline.model.attention import ScaledDotProduct
from redline.monitor.sampled_logits import attentions, check_sample, entropies, in_fp32, sample_of

Smoothing = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True)
class Prediction:
    """What a model has made of a batch."""

    model: MappedModel
    logits_BTV: Tensor
    targets_BT: Tensor
    cross_entropy: Tensor  # nats a token, plain


class Term:
    """One addend of the training loss: from a prediction to a scalar."""

    def attach(self, model: MappedModel) -> None:
        """Add hooks to the model, for what its output does not show."""

    def __call__(self, prediction: Prediction) -> Tensor:
        raise NotImplementedError


class CrossEntropy(Term):
    """Of the next token, in nats; ``label_smoothing`` is the share of the target that is spread evenly over
    the vocabulary (Szegedy et al. 2015, section 7).
    """

    def __init__(self, label_smoothing: Smoothing) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, prediction: Prediction) -> Tensor:
        if not self.label_smoothing:
            return prediction.cross_entropy
        logits_NV, targets_N = prediction.logits_BTV.flatten(0, 1), prediction.targets_BT.flatten()
        return F.cross_entropy(logits_NV, targets_N, label_smoothing=self.label_smoothing)


class ZLoss(Term):
    """``weight`` times the mean of log(Z)^2, Z the softmax's denominator (PaLM: Chowdhery et al. 2022)."""

    def __init__(self, weight: Positive) -> None:
        self.weight = weight

    def __call__(self, prediction: Prediction) -> Tensor:
        return self.weight * prediction.logits_BTV.float().logsumexp(-1).square().mean()


class MuLoss(Term):
    """``weight`` times the squared length of the mean row of the head's weight, which moves the logits' mean
    (Stollenwerk et al. 2026, arXiv 2601.02031).
    """

    def __init__(self, weight: Positive) -> None:
        self.weight = weight

    def __call__(self, prediction: Prediction) -> Tensor:
        head = prediction.model.site_map.head
        if head is None:
            raise UserError("loss.mu_loss: this model has no head; allowed: null")
        head_VD: Tensor = head.weight  # type: ignore[assignment]
        return self.weight * head_VD.float().mean(0).square().sum()


class AttentionEntropy(Term):
    """``weight`` times how far the heads' attention entropy is below ``minimum`` nats, the mean over heads.

    A head's entropy is the mean over the queries of a batch: all of them, or where ``queries`` is set at most
    so many of its first ``sequences`` sequences, as the tap of the same name takes them. Entropy that
    collapses goes with instability (Zhai et al. 2023, arXiv 2303.06296); a limit that each head is held to
    follows Jha & Reagen 2025, arXiv 2501.03489.
    """

    def __init__(
        self, weight: Positive, minimum: Positive, queries: Count | None, sequences: Count | None
    ) -> None:
        if queries is not None and sequences is not None:
            check_sample(queries, sequences)
        self.weight, self.minimum = weight, minimum
        self.queries, self.sequences = queries, sequences
        self._entropies: list[Tensor] = []  # (H,) each

    def attach(self, model: MappedModel) -> None:
        for inner in attentions(model):
            inner.register_forward_pre_hook(self._see)

    def _see(self, inner: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(inner, ScaledDotProduct)
        if inner.training:
            with in_fp32(inputs[0].device.type):
                sample = sample_of(inner, inputs, self.queries, self.sequences)
                found_H = entropies(inner, sample)
            if not recomputing():
                self._entropies.append(found_H)

    def __call__(self, prediction: Prediction) -> Tensor:
        entropy_LH = torch.stack(self._entropies)
        self._entropies.clear()
        return self.weight * F.relu(self.minimum - entropy_LH).mean()


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """The training loss."""
    first, *others = terms.values()
    return sum(others, first)
