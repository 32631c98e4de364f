"""A section of the page a module: ``ORDER`` is its place, ``section(search, reference)`` its content.

A new module is a new section, with nothing else to change.
"""

import importlib
import pkgutil

from redline.report.blocks import Section
from redline.report.search import Search


def all_sections(search: Search, reference: str) -> list[Section]:
    """In the order of the page; ``reference`` is the variant that ratios are to."""
    modules = [
        importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    ]
    return [module.section(search, reference) for module in sorted(modules, key=lambda its: its.ORDER)]
