"""Gradients scaled down: by their global norm, by number, by tensor, or where they are outliers."""

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from redline.bounds import Count, Epsilon, Kept, Positive
from redline.training.gradients.step import Gradients, GradientStep

Ratio = Annotated[float, Ge(1), Le(10**6)]


class Clip(GradientStep):
    """Scales all gradients down to a global L2 norm of ``max_norm`` (Pascanu et al. 2013, section 3.2)."""

    def __init__(self, max_norm: Positive) -> None:
        self.max_norm = max_norm

    def __call__(self, gradients: Gradients) -> None:
        # As torch's own, which does not take parts of tensors with the norm of the whole.
        gradients.scale((self.max_norm / (gradients.norm_now + 1e-6)).clamp(max=1.0))


class ClipValue(GradientStep):
    """Puts each number of a gradient between -``max_value`` and ``max_value``."""

    def __init__(self, max_value: Positive) -> None:
        self.max_value = max_value

    def __call__(self, gradients: Gradients) -> None:
        tensors = gradients.tensors
        torch._foreach_clamp_min_(tensors, -self.max_value)
        torch._foreach_clamp_max_(tensors, self.max_value)
        gradients.changed()


class AdaGC(GradientStep):
    """Scales each tensor's gradient down to ``ratio`` times the running mean of its own clipped norms, which
    keeps the share ``beta`` a step; ``eps`` is the least that counts for such a mean.

    In the steps before ``warmup_steps`` all are clipped to the global norm ``warmup_norm``, and the mean is
    each tensor's smallest norm so far (Wang et al. 2025, arXiv 2502.11034, algorithm 1).
    """

    kept = ("steps", "means_P")

    def __init__(
        self, ratio: Ratio, beta: Kept, warmup_steps: Count, warmup_norm: Positive, eps: Epsilon
    ) -> None:
        self.ratio, self.beta, self.eps = ratio, beta, eps
        self.warmup_steps, self.warmup_norm = warmup_steps, warmup_norm
        self.steps = 0
        self.means_P: Tensor | None = None  # one a tensor

    def __call__(self, gradients: Gradients) -> None:
        self.steps += 1
        norms_P = gradients.norms
        if self.means_P is None:
            self.means_P = torch.full_like(norms_P, torch.inf)
        if self.steps == 1 or self.steps < self.warmup_steps:
            factors_P = (self.warmup_norm / (gradients.norm_now + self.eps)).clamp(max=1.0).expand_as(norms_P)
            means_P = torch.minimum(self.means_P, norms_P * factors_P)
        else:
            most_P = self.ratio * self.means_P.clamp(min=self.eps)
            factors_P = (most_P / norms_P.clamp(min=self.eps)).clamp(max=1.0)
            clipped_P = norms_P * factors_P
            # Infinite where no norm was finite so far.
            means_P = torch.where(
                self.means_P.isfinite(), self.means_P.lerp(clipped_P, 1 - self.beta), clipped_P
            )
        # One norm that is not finite would be in the mean for ever.
        self.means_P = torch.where(norms_P.isfinite(), means_P, self.means_P)
        torch._foreach_mul_(gradients.tensors, list(factors_P.unbind()))
        gradients.changed()


class ZClip(GradientStep):
    """Scales all gradients down where the z-score of their global norm, from its running mean and variance,
    is above ``z_max``: to the mean plus ``z_max`` squared over z standard deviations (Kumar et al. 2025,
    arXiv 2504.02507, algorithm 1, with the reciprocal of z).

    Both keep the share ``beta`` a step, and start as those of the first ``warmup_steps``. A norm that is
    clipped counts as what it is clipped to; one that is not finite does not count.
    """

    kept = ("first_N", "mean", "variance")
    hides_divergence = True

    def __init__(self, z_max: Positive, beta: Kept, warmup_steps: Count, eps: Epsilon) -> None:
        self.z_max, self.beta, self.eps, self.warmup_steps = z_max, beta, eps, warmup_steps
        self.first_N = torch.empty(0)  # norms, until there are enough
        self.mean: Tensor | None = None
        self.variance: Tensor | None = None

    def __call__(self, gradients: Gradients) -> Tensor | bool:
        norm = gradients.norm
        if self.mean is None or self.variance is None:
            self.first_N = torch.cat([self.first_N, norm.reshape(1)])
            if len(self.first_N) == self.warmup_steps:
                finite_N = self.first_N.isfinite()
                self.mean = self.first_N.nan_to_num(0.0, 0.0, 0.0).sum() / finite_N.sum()
                squares_N = torch.where(finite_N, (self.first_N - self.mean).square(), 0.0)
                self.variance = squares_N.sum() / finite_N.sum()
            return False
        deviation = self.variance.sqrt()
        z = (norm - self.mean) / (deviation + self.eps)
        is_spike = (z > self.z_max) & norm.isfinite()
        counted = torch.where(is_spike, self.mean + self.z_max**2 / z * deviation, norm)
        mean = self.mean.lerp(counted, 1 - self.beta)
        variance = self.variance.lerp((counted - mean).square(), 1 - self.beta)
        self.mean = torch.where(norm.isfinite(), mean, self.mean)
        self.variance = torch.where(norm.isfinite(), variance, self.variance)
        most = (counted / (gradients.norm_now + self.eps)).clamp(max=1.0)
        gradients.scale(torch.where(is_spike, most, 1.0))
        return is_spike
