"""MLflow by way of an outbox on disk.

A call to MLflow costs milliseconds where it answers and minutes where it does not; appending a step's metrics
to a file costs microseconds.
"""

import io
import logging
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from filelock import Timeout
from lightning.pytorch.loggers import Logger

from redline.training.outbox import Outbox, run_page, start_sender
from redline.training.trackers.trackers import TrackedRun, new_run_key

_LOOK_EVERY = 0.5  # seconds between two looks for the run's page
_CHECK_EVERY = 30.0  # seconds between two looks at the sender

log = logging.getLogger(__name__)


class MLFlowOutboxLogger(Logger):
    """MLflow's run is made, filled and ended by the outbox's sender.

    MLflow stores an infinity as the largest double, so each non-finite value also sets
    ``<metric>/non_finite`` to 1 at its step.
    """

    def __init__(self, *, run: TrackedRun, ui: str | None = None, **outbox: Any) -> None:
        """``ui``: the address of MLflow's UI, None for no pages; ``outbox``: see `Outbox`."""
        super().__init__()
        self.run, self.ui = run, ui
        self._outbox = Outbox(**outbox)
        try:
            self._writer = self._outbox.open(run.key)
        except Timeout:  # another process resumes from the same checkpoint
            self._writer = self._outbox.open(new_run_key())
        self.run_key = self._writer.key
        self._page: str | None = None
        self._looked = 0.0
        self._trouble, self._warned = self._outbox.trouble(), False
        self._checked = time.monotonic()
        tags = dict(run.tags)
        self._writer.append("start", experiment=run.experiment, name=run.name, tags=tags, time=_now())
        start_sender(self._outbox)

    @property
    def name(self) -> str:
        return self.run.experiment

    @property
    def version(self) -> str:
        return self.run_key

    @property
    def page(self) -> str | None:
        """The run's page in MLflow's UI, once MLflow has the run."""
        now = time.monotonic()
        if self._page is None and self.ui is not None and now - self._looked > _LOOK_EVERY:
            self._looked = now
            run_id = self._writer.sent().run_id
            self._page = None if run_id is None else run_page(self.ui, run_id)
        return self._page

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        self._writer.append("params", values={key: str(value) for key, value in _flat(params)})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {key: float(value) for key, value in metrics.items()}
        values |= {f"{key}/non_finite": 1.0 for key, value in values.items() if not math.isfinite(value)}
        self._writer.append("metrics", step=step or 0, time=_now(), values=values)
        self._check_sender()

    def log_arrays(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """An artifact ``histograms/step_000123.npz``."""
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        self._writer.append_file(f"histograms/step_{step:06d}.npz", content.getvalue())

    def log_file(self, name: str, text: str) -> None:
        self._writer.append_file(name, text.encode())

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self._writer.append("tags", values={key: str(value) for key, value in tags.items()})

    def end(self, status: str) -> None:
        self._writer.append("end", status=status, time=_now())
        self._writer.close()
        start_sender(self._outbox)

    def _check_sender(self) -> None:
        """Start another if it was killed; warn, once, of a store that takes nothing."""
        now = time.monotonic()
        if now - self._checked < _CHECK_EVERY:
            return
        self._checked = now
        start_sender(self._outbox)
        trouble = self._outbox.trouble()
        if trouble is not None and trouble != self._trouble and not self._warned:
            self._warned = True
            log.warning(self._outbox.waits(trouble[0], 1))


def _now() -> int:
    return int(time.time() * 1000)


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value
