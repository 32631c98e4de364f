"""Finds how hard a model can be pushed before its training diverges."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redline.api import find_edge, geometric
    from redline.errors import OutageError, UserError
    from redline.report import load_search
    from redline.search import Facts, Score, SearchResult, Trainable, Trial
    from redline.watching import watch

__all__ = [
    "Facts",
    "OutageError",
    "Score",
    "SearchResult",
    "Trainable",
    "Trial",
    "UserError",
    "find_edge",
    "geometric",
    "load_search",
    "watch",
]

_HOMES = {
    "find_edge": "api",
    "geometric": "api",
    "load_search": "report",
    "OutageError": "errors",
    "UserError": "errors",
    "watch": "watching",
}


def __getattr__(name: str) -> Any:
    # Importing `redline` costs nothing: the command line, and every trial, does it.
    if name not in __all__:
        raise AttributeError(f"module 'redline' has no attribute {name!r}")
    return getattr(import_module(f"redline.{_HOMES.get(name, 'search')}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
