"""The transformer, its two attention paths, and the norm strategies. Pure torch."""

from redline.model.norm_strategy import OUTSIDE, SITES, NormStrategy, Site, Transform
from redline.model.roles import LINEARS, ROLES, Linear, Named, named_parameters
from redline.model.transformer import Transformer

__all__ = [
    "LINEARS",
    "OUTSIDE",
    "ROLES",
    "SITES",
    "Linear",
    "Named",
    "NormStrategy",
    "Site",
    "Transform",
    "Transformer",
    "named_parameters",
]
