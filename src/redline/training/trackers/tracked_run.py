"""What a tracker is told of the run it is to track."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TrackedRun:
    """``key`` is made by us, and stays the same when the run is gone on with."""

    key: str
    experiment: str
    name: str
    tags: Mapping[str, str]
    in_search: bool = False  # a search has a process that sends what its trials leave in the outbox


def new_run_key() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:12]}"
