"""The engine: any trainable in, its edges out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    **dict.fromkeys(("Facts", "Score", "Trainable", "Trial"), "trainable"),
    **dict.fromkeys(("SearchResult", "VariantResult"), "result"),
    "Options": "options",
    "Variant": "variant",
}


def __getattr__(name: str) -> Any:
    # The command line's schema needs the options at every start, --help included; a trial the contract.
    if name not in __all__:
        raise AttributeError(f"module 'redline.search' has no attribute {name!r}")
    return getattr(import_module(f"redline.search.{_HOMES.get(name, 'engine')}"), name)
