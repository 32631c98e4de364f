"""The engine: any trainable in, its edges out. `engine.run_search` runs one; Optuna takes long to import."""

from redline.search.options import Options
from redline.search.request import AtEnd, EndedSearch, Search
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
]
