"""The transforms that a norm strategy may put at a site: small modules, one file for each kind."""

from redline.model.transforms.layer_scale import LayerScale
from redline.model.transforms.norm_layers import BatchNorm, LayerNorm, RMSNorm, norm
from redline.model.transforms.qk_clip import QKClip
from redline.model.transforms.scale import LearnedScale, Scale
from redline.model.transforms.sigma_reparam import SigmaReparam
from redline.model.transforms.sigmoid_gate import SigmoidGate
from redline.model.transforms.soft_cap import SoftCap
from redline.model.transforms.soft_clip import SoftClip
from redline.model.transforms.softmax import SinkSoftmax, Softpick
from redline.model.transforms.squashing import Derf, DyT
from redline.model.transforms.sums import Highway, Interpolate
from redline.model.transforms.unit import UnitNorm, UnitWeight

__all__ = [
    "BatchNorm",
    "Derf",
    "DyT",
    "Highway",
    "Interpolate",
    "LayerNorm",
    "LayerScale",
    "LearnedScale",
    "QKClip",
    "RMSNorm",
    "Scale",
    "SigmaReparam",
    "SigmoidGate",
    "SinkSoftmax",
    "SoftCap",
    "SoftClip",
    "Softpick",
    "UnitNorm",
    "UnitWeight",
    "norm",
]
