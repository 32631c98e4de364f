"""The report at a search's end: written in a process of its own, and never the search's trouble."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.search.workers.pool import Ended, Pool

_JOB = "redline.report.job:publish"  # by name: importing it would import matplotlib and MLflow


@dataclass(frozen=True)
class Publishing:
    """``patience``: seconds that the report may take; None: there is to be none."""

    storage: str  # the studies' URL
    reference: str
    patience: float | None


def publish(
    publishing: Publishing,
    pool: Pool,
    search: str,
    directory: Path,
    tracking_uri: str | None,
    say: Callable[[str], Any],
) -> None:
    """Write the report on a search that has ended, and say in a line where it is, or why it is not.

    Nothing that goes wrong is raised, Ctrl-C included: the search has its answer, and the report can wait.
    """
    if publishing.patience is None:
        return
    payload = {
        "search": search,
        "storage": publishing.storage,
        "tracking_uri": tracking_uri,
        "directory": str(directory),
        "reference": publishing.reference,
    }
    log = directory / "report.log"
    later = f"make report SEARCH={search}"
    try:
        ended = _wait(pool, payload, log, publishing.patience)
    except (KeyboardInterrupt, OSError, EOFError) as error:
        say(f"report: not written ({type(error).__name__}); `{later}` writes it")
        return
    if ended.result is None:
        say(f"report: not written ({ended.user_error or ended.crash}; log: {log}); `{later}` writes it")
        return
    say(f"report: {ended.result['path']}")
    if ended.result["trouble"] is not None:
        say(f"report: not in MLflow ({ended.result['trouble']})")


def _wait(pool: Pool, payload: dict[str, Any], log: Path, patience: float) -> Ended:
    slot = pool.slots[0]
    until = time.monotonic() + patience
    try:
        pool.start(slot, _JOB, payload, log)
        while time.monotonic() < until:
            for _, message in pool.poll(0.5):
                if isinstance(message, Ended):
                    return message
    finally:
        pool.stop(slot)
    return Ended(crash=f"took more than {patience:g} s")
