"""The transformer, its two attention paths, and the norm strategies. Pure torch."""

from redline.model.norm_strategy import OUTSIDE, SITES, NormStrategy, Site, Transform
from redline.model.recompute import recompute, recomputing
from redline.model.roles import ROLES, Named, named_parameters
from redline.model.site_map import LINEARS, Layer, Linear, MappedModel, Output, SiteMap
from redline.model.transformer import Transformer

__all__ = [
    "LINEARS",
    "OUTSIDE",
    "ROLES",
    "SITES",
    "Layer",
    "Linear",
    "MappedModel",
    "Named",
    "NormStrategy",
    "Output",
    "Site",
    "SiteMap",
    "Transform",
    "Transformer",
    "named_parameters",
    "recompute",
    "recomputing",
]
