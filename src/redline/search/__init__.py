"""The engine: any trainable in, its edges out."""

from typing import TYPE_CHECKING, Any

from redline.search.options import Options
from redline.search.request import AtEnd, EndedSearch, Search
from redline.search.result import SearchResult, VariantResult
from redline.search.trainable import Facts, Score, Trainable, Trial
from redline.search.variant import Variant

if TYPE_CHECKING:
    from redline.search.engine import run_search

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


def __getattr__(name: str) -> Any:
    # Optuna takes long to import: the command line's schema, --help and trials do without.
    if name != "run_search":
        raise AttributeError(f"module 'redline.search' has no attribute {name!r}")
    from redline.search.engine import run_search

    return run_search
