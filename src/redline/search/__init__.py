"""The engine: any trainable in, its edges out."""

from redline.search.engine import AtEnd, EndedSearch, Search, run_search
from redline.search.options import Options
from redline.search.result import SearchResult, VariantResult
from redline.search.trainable import Facts, Score, Trainable, Trial
from redline.search.variant import Variant

__all__ = [
    "AtEnd",
    "EndedSearch",
    "Facts",
    "Options",
    "Score",
    "Search",
    "SearchResult",
    "Trainable",
    "Trial",
    "Variant",
    "VariantResult",
    "run_search",
]
