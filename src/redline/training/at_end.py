"""At a search's end, sends what its trials have not sent yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from redline.search import AtEnd, EndedSearch


@dataclass(frozen=True)
class SendCurves(AtEnd):
    """``trackers``: of each variant, the group `tracker` of its configuration."""

    trackers: Sequence[Mapping[str, Any]]
    timeout: float | None = None  # each tracker's `send_timeout` bounds it
    name: ClassVar[str] = "send"
    command: ClassVar[str] = "redline send"

    def __call__(self, search: EndedSearch) -> Sequence[str]:
        from redline.training.outbox import finish

        distinct = [its for i, its in enumerate(self.trackers) if its not in self.trackers[:i]]
        lines = [finish(tracker, search.name) for tracker in distinct]
        return [line for line in lines if line is not None]
