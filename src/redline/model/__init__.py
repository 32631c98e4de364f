"""The transformer, its two attention paths, and the norm strategies. Pure torch."""

from redline.model.norm_strategy import SITES, NormStrategy, Site, Transform
from redline.model.transformer import Transformer

__all__ = ["SITES", "NormStrategy", "Site", "Transform", "Transformer"]
