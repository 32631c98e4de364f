"""A search's end, for its trackers: what the trials left to be sent is sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from redline.search import AtEnd, EndedSearch


@dataclass(frozen=True)
class SendCurves(AtEnd):
    """``trackers``: of each variant, the group `tracker` of its configuration. ``ui``: MLflow's address."""

    trackers: Sequence[Mapping[str, Any]]
    ui: str | None
    timeout: float | None = None  # each tracker's `send_timeout` bounds it
    name: ClassVar[str] = "send"

    def __call__(self, search: EndedSearch) -> Sequence[str]:
        from redline.training.trackers import finish  # imports MLflow

        distinct: list[Mapping[str, Any]] = []
        for tracker in self.trackers:
            if tracker not in distinct:
                distinct.append(tracker)
        return [line for tracker in distinct for line in finish(tracker, search.name)]
