"""The loggers of a run, and what it tells them beyond what Lightning does."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.loggers import Logger


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of its run. ``key`` is made by us, and stays when the run is resumed."""

    key: str
    experiment: str
    name: str
    tags: Mapping[str, str]


def new_run_key() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:12]}"


class Trackers:
    """``loggers`` are for Lightning's Trainer.

    A logger may have more than Lightning asks of it: ``set_tags``, ``log_file``, ``log_arrays``, ``end``,
    ``page`` and ``run_key``. What it lacks is left out, but tags become hyperparameters.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = list(loggers)

    @property
    def page(self) -> str | None:
        """Where the run's curves are shown, once that is known. May be asked at every step."""
        return next((page for its in self.loggers if (page := getattr(its, "page", None))), None)

    @property
    def run_key(self) -> str | None:
        """The run's tag ``run_key`` in MLflow; None without MLflow."""
        return next((key for its in self.loggers if (key := getattr(its, "run_key", None))), None)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for logger in self.loggers:
            logger.log_metrics(dict(metrics), step)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        for logger in self.loggers:
            logger.log_hyperparams(dict(params))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        for logger in self.loggers:
            getattr(logger, "set_tags", logger.log_hyperparams)(dict(tags))

    def log_file(self, name: str, content: bytes) -> None:
        """A file beside the curves."""
        for logger in self.loggers:
            if hasattr(logger, "log_file"):
                logger.log_file(name, content)

    def end(self, status: str) -> None:
        """``status``: FINISHED, FAILED or KILLED. Waits for no store: `outbox.drain` does."""
        for logger in self.loggers:
            logger.finalize("success" if status == "FINISHED" else "failed")
            if hasattr(logger, "end"):
                logger.end(status)
