"""Other ways than softmax from scores to what a query takes of each value: a head may attend to nothing."""

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from redline.bounds import Epsilon
from redline.model.norm_strategy import Site


class SinkSoftmax(nn.Module):
    """``exp(x) / (exp(s) + sum exp(x))``: the softmax's denominator has one more logit s, which each head
    learns and which starts at ``init`` (gpt-oss: OpenAI 2025, arXiv 2508.10925).
    """

    def __init__(self, site: Site, init: Annotated[float, Ge(-100), Le(100)]) -> None:
        super().__init__()
        site.require("SinkSoftmax", "BHTT->BHTT")
        self.logit_H = nn.Parameter(torch.full((site.num_heads,), float(init)))

    def forward(self, score_BHTT: Tensor) -> Tensor:
        score_BHTT = score_BHTT.float()
        # The tokens' share of the denominator.
        share_BHT1 = torch.sigmoid(score_BHTT.logsumexp(-1, keepdim=True) - self.logit_H.view(-1, 1, 1))
        return torch.softmax(score_BHTT, -1) * share_BHT1


class Softpick(nn.Module):
    """``relu(exp(x) - 1) / (sum |exp(x) - 1| + eps)`` over the tokens that are not masked (Zuhri et al. 2025,
    arXiv 2504.20966). A score below 0 takes nothing, and still counts in the denominator.

    Both are divided by exp(m), m the largest score, so that neither overflows where one of them is above 0.
    """

    def __init__(self, site: Site, eps: Epsilon) -> None:
        super().__init__()
        site.require("Softpick", "BHTT->BHTT")
        self.eps = eps

    def forward(self, score_BHTT: Tensor) -> Tensor:
        score_BHTT = score_BHTT.float()
        # The result does not depend on m, so its gradient need not go there.
        m_BHT1 = score_BHTT.detach().amax(-1, keepdim=True)
        one_BHT1 = torch.exp(-m_BHT1)
        above_BHTT = torch.exp(score_BHTT - m_BHT1) - one_BHT1
        above_BHTT = above_BHTT.masked_fill(score_BHTT == -torch.inf, 0.0)
        sum_BHT1 = above_BHTT.abs().sum(-1, keepdim=True) + self.eps * one_BHT1
        return above_BHTT.relu() / sum_BHT1
