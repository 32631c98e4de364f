"""What is done to gradients between the backward pass and the optimizer: the steps of ``conf/gradient/``."""

from redline.training.gradients.clipping import AdaGC, Clip, ClipValue, ZClip
from redline.training.gradients.skipping import SkipNonFinite, SkipOutliers
from redline.training.gradients.step import Gradients, GradientStep, GradientSteps, global_norm

__all__ = [
    "AdaGC",
    "Clip",
    "ClipValue",
    "GradientStep",
    "GradientSteps",
    "Gradients",
    "SkipNonFinite",
    "SkipOutliers",
    "ZClip",
    "global_norm",
]
