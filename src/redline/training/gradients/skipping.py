"""Steps that the optimizer is to leave out."""

from typing import Annotated

import torch
from annotated_types import Ge, Le

from redline.bounds import Positive
from redline.training.gradients.step import Gradients, GradientStep

Window = Annotated[int, Ge(8), Le(10**6)]  # steps


class SkipOutliers(GradientStep):
    """Skips the optimizer's step where loss or gradient norm is more than ``sigmas`` standard deviations
    above its mean over the last ``window`` steps, once half are known (OLMo-core's SkipStepOptimizer).

    A skipped step counts in that mean; one that is not finite is skipped at any time, and does not count.
    """

    kept = ("seen_N2",)
    hides_divergence = True

    def __init__(self, sigmas: Positive, window: Window) -> None:
        self.sigmas, self.window = sigmas, window
        self.seen_N2 = torch.empty(0, 2)  # loss and norm of each step

    def __call__(self, gradients: Gradients) -> bool:
        now_2 = torch.stack([gradients.loss.float(), gradients.norm])
        is_outlier = ~now_2.isfinite().all()
        if len(self.seen_N2) + 1 >= self.window // 2:
            deviation_2, mean_2 = torch.std_mean(self.seen_N2, dim=0)
            is_outlier = is_outlier | (now_2 - mean_2 > self.sigmas * deviation_2).any()
        finite, skipped = torch.stack([now_2.isfinite().all(), is_outlier]).tolist()
        if finite:
            self.seen_N2 = torch.cat([self.seen_N2, now_2[None]])[-self.window :]
        if skipped:
            gradients.drop()
        return skipped


class SkipNonFinite(GradientStep):
    """Skips the optimizer's step where loss or gradient norm is NaN or infinite."""

    hides_divergence = True

    def __call__(self, gradients: Gradients) -> bool:
        skipped = not bool(gradients.loss.isfinite() & gradients.norm.isfinite())
        if skipped:
            gradients.drop()
        return skipped
