"""The search's only state: Optuna studies, who works on them, and how an outage is borne."""

from redline.search.store.record import RecordedTrial, RecordedVariant, link_trials, read_searches
from redline.search.store.storage import check_storage, open_storage

__all__ = [
    "RecordedTrial",
    "RecordedVariant",
    "check_storage",
    "link_trials",
    "open_storage",
    "read_searches",
]
