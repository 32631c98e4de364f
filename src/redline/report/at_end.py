"""The report at a search's end, written in a child process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from redline.search import AtEnd, EndedSearch


@dataclass(frozen=True)
class WriteReport(AtEnd):
    """``tracking_uris``: the MLflow stores that the runs are in; each gets a copy of the report."""

    timeout: float | None  # seconds
    tracking_uris: Sequence[str] = ()
    name: ClassVar[str] = "report"
    command: ClassVar[str] = "redline report {search}"

    def __call__(self, search: EndedSearch) -> Sequence[str]:
        from redline.report.job import publish  # imports matplotlib and MLflow

        path, trouble = publish(
            search.name, search.storage, self.tracking_uris, search.directory, search.reference
        )
        lines = [f"report: {path}"]
        if trouble is not None:
            lines.append(f"report: not in MLflow ({trouble})")
        return lines
