"""The transformer, its two attention paths, and the norm strategies. Pure torch."""

from redline.model.norm_strategy import OUTSIDE, SITES, NormStrategy, Site, Transform
from redline.model.transformer import Transformer

__all__ = ["OUTSIDE", "SITES", "NormStrategy", "Site", "Transform", "Transformer"]
