"""Any number of Lightning's loggers behind one, and what a run tells them beyond metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger


class Trackers(Logger):
    """Hands everything to each of ``loggers``.

    A logger may have more than Lightning asks of it: ``set_tags``, ``log_file``, ``log_arrays``, ``end``,
    ``run_id`` and ``run_key``. What it lacks is left out, but tags become
    hyperparameters.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        super().__init__()
        self.loggers = list(loggers)

    @property
    def name(self) -> str | None:
        return self.loggers[0].name if self.loggers else None

    @property
    def version(self) -> int | str | None:
        return self.loggers[0].version if self.loggers else None

    @property
    def run_id(self) -> str | None:
        """MLflow's, once it is known."""
        return self._first("run_id")

    @property
    def run_key(self) -> str | None:
        """Under which MLflow's run is found."""
        return self._first("run_key")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for logger in self.loggers:
            logger.log_metrics(dict(metrics), step)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        for logger in self.loggers:
            logger.log_hyperparams(dict(params))

    def log_arrays(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        self._each("log_arrays", arrays, step)

    def log_file(self, name: str, text: str) -> None:
        """A file beside the curves."""
        self._each("log_file", name, text)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        for logger in self.loggers:
            getattr(logger, "set_tags", logger.log_hyperparams)(dict(tags))

    def save(self) -> None:
        for logger in self.loggers:
            logger.save()

    def finalize(self, status: str) -> None:
        # The run is ended by whoever knows how it ended: `fit` and `validate` both finalize.
        self.save()

    def end(self, status: str) -> None:
        """``status``: FINISHED, FAILED or KILLED."""
        for logger in self.loggers:
            logger.finalize("success" if status == "FINISHED" else "failed")
        self._each("end", status)

    def _first(self, attribute: str) -> str | None:
        found = (getattr(logger, attribute, None) for logger in self.loggers)
        return next((value for value in found if value is not None), None)

    def _each(self, method: str, *arguments: Any) -> None:
        for logger in self.loggers:
            if hasattr(logger, method):
                getattr(logger, method)(*arguments)
