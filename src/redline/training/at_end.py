"""A search's end, for its trackers: what waits is sent, and trials are linked to their curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from redline.search import AtEnd, EndedSearch

_TIMEOUT = 10.0  # seconds that a storage which does not answer is waited for


@dataclass(frozen=True)
class SendCurves(AtEnd):
    """``trackers``: of each variant, the group `tracker` of its configuration."""

    trackers: Sequence[Mapping[str, Any]]
    timeout: float | None = None  # each tracker's `send_timeout` bounds it
    name: ClassVar[str] = "send"
    command: ClassVar[str] = "redline send"

    def __call__(self, search: EndedSearch) -> Sequence[str]:
        from redline.search.store.record import link_trials
        from redline.search.store.storage import open_storage
        from redline.training.outbox import finish

        distinct = [its for i, its in enumerate(self.trackers) if its not in self.trackers[:i]]
        finished = [finish(tracker, search.name) for tracker in distinct]
        storage = open_storage(search.storage, _TIMEOUT)
        for its in finished:
            link_trials(storage, search.name, its.pages)
        return [its.line for its in finished if its.line is not None]
