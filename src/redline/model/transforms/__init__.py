"""The transforms that a norm strategy may put at a site: one small module each."""

from redline.model.transforms.layer_norm import LayerNorm
from redline.model.transforms.layer_scale import LayerScale
from redline.model.transforms.scale import Scale
from redline.model.transforms.sigma_reparam import SigmaReparam
from redline.model.transforms.soft_cap import SoftCap
from redline.model.transforms.soft_clip import SoftClip

__all__ = ["LayerNorm", "LayerScale", "Scale", "SigmaReparam", "SoftCap", "SoftClip"]
