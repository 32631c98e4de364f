"""MLflow by way of an outbox on disk.

A call to MLflow costs milliseconds where it answers and minutes where it does not; appending a step's metrics
to a file costs microseconds.
"""

import io
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from filelock import Timeout
from lightning.pytorch.loggers import Logger

from redline.bounds import Positive
from redline.files import atomic_write
from redline.tracked_runs import RUN_KEY
from redline.training.outbox import Outbox, RunState, start_sender
from redline.training.trackers.trackers import TrackedRun, new_run_key

_LOOK_EVERY = 0.5  # seconds between two looks for the run's page: it is asked for at each step
_CHECK_EVERY = 30.0  # seconds between two looks at the sender

log = logging.getLogger(__name__)


class MLFlowOutboxLogger(Logger):
    """MLflow's run is made, filled and ended by the outbox's sender.

    MLflow stores an infinity as the largest double, so each non-finite value also sets
    ``<metric>/non_finite`` to 1 at its step.
    """

    def __init__(
        self,
        *,
        run: TrackedRun,
        outbox: str,
        tracking_uri: str,
        artifact_location: str,
        send_every: Positive,
        send_timeout: Positive,
        ui: str | None,
    ) -> None:
        super().__init__()
        self._outbox = Outbox(outbox, tracking_uri, artifact_location, send_every, send_timeout, ui)
        try:
            self._folder = self._outbox.open(run.key)
        except Timeout:  # another process resumes from the same checkpoint
            self._folder = self._outbox.open(new_run_key())
        self.run_key = self._folder.key
        self._state = RunState(run.experiment, run.name, _now(), {RUN_KEY: self.run_key})
        if (before := self._folder.state()) is not None:  # of a run that was killed, and not all is sent
            self._state = replace(self._state, began=before.began, tags=before.tags)
        self.set_tags(run.tags)
        self._page: str | None = None
        self._looked = 0.0
        self._checked, self._warned = time.monotonic(), False
        self._outbox.note_trouble("")
        start_sender(self._outbox)

    @property
    def name(self) -> str:
        return self._state.experiment

    @property
    def version(self) -> str:
        return self.run_key

    @property
    def page(self) -> str | None:
        """The run's page in MLflow's UI, once MLflow has the run."""
        now = time.monotonic()
        if self._page is None and now - self._looked > _LOOK_EVERY:
            self._looked = now
            run_id = self._folder.run_id
            self._page = None if run_id is None else self._outbox.page(f"runs/{run_id}")
        return self._page

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        self._become(params={**self._state.params, **{key: str(value) for key, value in _flat(params)}})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self._become(tags={**self._state.tags, **{key: str(value) for key, value in tags.items()}})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {key: float(value) for key, value in metrics.items()}
        values |= {f"{key}/non_finite": 1.0 for key, value in values.items() if not math.isfinite(value)}
        self._folder.append(step or 0, _now(), values)
        self._check_sender()

    def log_arrays(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """An artifact ``histograms/step_000123.npz``."""
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        self.log_file(f"histograms/step_{step:06d}.npz", content.getvalue())

    def log_file(self, name: str, content: bytes) -> None:
        path = self._folder.files / name
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_name(f"{path.name}.tmp")
        unfinished.write_bytes(content)  # not atomic_write: training does not wait for the disk
        unfinished.replace(path)

    def end(self, status: str) -> None:
        self._become(status=status, ended=_now())
        self._looked = 0.0  # the outcome names the page if there is one by now
        self._folder.close()
        start_sender(self._outbox)

    def _become(self, **changes: Any) -> None:
        self._state = replace(self._state, **changes)
        with atomic_write(self._folder.path / "state.json") as file:
            file.write(json.dumps(asdict(self._state)).encode())

    def _check_sender(self) -> None:
        """Start another if it was killed; warn, once, of a store that takes nothing."""
        now = time.monotonic()
        if now - self._checked < _CHECK_EVERY:
            return
        self._checked = now
        start_sender(self._outbox)
        if self._outbox.trouble and not self._warned:
            self._warned = True
            log.warning(self._outbox.waits(self._outbox.trouble, 1))


def _now() -> int:
    return int(time.time() * 1000)


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value
