"""MLflow by way of an outbox on disk: training appends to a file, and a sender's process does the rest.

A call to MLflow costs milliseconds where it answers and minutes where it does not; appending a step's metrics
costs microseconds.
"""

import io
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from filelock import Timeout
from lightning.pytorch.loggers import Logger

from redline.training.outbox import Outbox, Spool
from redline.training.outbox.process import SenderProcess, sender_process
from redline.training.outbox.spool import waiting_text, without_password
from redline.training.trackers.tracked_run import TrackedRun, new_run_key

_STALL = 5.0  # seconds in which a store that takes anything takes something
_INTERRUPTED = 1.0  # seconds for the end of a run that is to end at once
_LOOK_EVERY = 0.5  # seconds

log = logging.getLogger(__name__)


class MLFlowOutboxLogger(Logger):
    """MLflow's run is made, filled and ended by a sender; ``run_id`` is None until that has happened.

    MLflow stores an infinity as the largest double, so each non-finite value also sets
    ``<metric>/non_finite`` to 1 at its step.
    """

    def __init__(
        self,
        *,
        run: TrackedRun,
        tracking_uri: str,
        artifact_location: str,
        outbox: str,
        send_every: float,
        send_timeout: float,
    ) -> None:
        """``send_every``, ``send_timeout``: seconds; see the YAML."""
        super().__init__()
        self.run = run
        self.send_timeout = send_timeout
        self.store = without_password(tracking_uri)
        self._sender: SenderProcess | None = None
        if not run.in_search:
            self._sender = sender_process(
                {
                    "outbox": outbox,
                    "tracking_uri": tracking_uri,
                    "artifact_location": artifact_location,
                    "send_every": send_every,
                }
            )
        self._outbox = Outbox(outbox)
        self._spool = self._open(run.key)
        self._run_id: str | None = None
        self._began = time.time()
        self._looked = 0.0
        self._warned = False
        self._spool.append("start")

    def _open(self, key: str) -> Spool:
        header = {
            "store": self.store,
            "experiment": self.run.experiment,
            "name": self.run.name,
            "tags": dict(self.run.tags),
            "start_time": _now(),
        }
        try:
            return self._outbox.open(key, header)
        except Timeout:  # somebody goes on from the same checkpoint at the same time
            return self._outbox.open(new_run_key(), header)

    @property
    def name(self) -> str:
        return self.run.experiment

    @property
    def version(self) -> str:
        return self.run_key

    @property
    def run_key(self) -> str:
        return self._spool.key

    @property
    def run_id(self) -> str | None:
        now = time.monotonic()
        if self._run_id is None and now - self._looked > _LOOK_EVERY:
            self._looked = now
            self._run_id = self._spool.run_id
            if self._run_id is None:
                self._warn_of(self._outbox.trouble(self.store, since=self._began))
        return self._run_id

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        self._spool.append("params", values={key: str(value) for key, value in _flat(params)})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {key: float(value) for key, value in metrics.items()}
        values |= {f"{key}/non_finite": 1.0 for key, value in values.items() if not math.isfinite(value)}
        self._spool.append("metrics", step=step or 0, time=_now(), values=values)

    def log_arrays(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """An artifact ``histograms/step_000123.npz``."""
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        self._spool.append_file(f"histograms/step_{step:06d}.npz", content.getvalue())

    def log_file(self, name: str, text: str) -> None:
        self._spool.append_file(name, text.encode())

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self._spool.append("tags", values={key: str(value) for key, value in tags.items()})

    def end(self, status: str) -> None:
        """Wait a little for what is not sent; what is not sent then stays in the outbox."""
        self._spool.append("end", status=status, time=_now())
        self._spool.hurry()
        self._began = time.time()
        limit = self.send_timeout if status != "KILLED" else _INTERRUPTED
        # A search sends on when its trials have ended, and its next one is waiting.
        if not self.run.in_search and not self._wait(lambda: self._spool.is_sent, limit):
            trouble = self._outbox.trouble(self.store, since=self._began)
            log.warning(waiting_text(self.store, trouble, self._outbox))
        self._run_id = self._spool.run_id
        self._spool.close()

    def _wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait for something as long as there is hope of it."""
        began = progressed = time.monotonic()
        sent = -1
        while not done():
            now = time.monotonic()
            if self._sender is not None and not self._sender.is_alive:
                return False
            if self._spool.bytes_sent != sent or (self._sender is not None and not self._sender.is_ready):
                sent, progressed = self._spool.bytes_sent, now
            if now - began > seconds or now - progressed > _STALL:
                return False
            if self._outbox.trouble(self.store, since=self._began) is not None:
                return False
            time.sleep(0.02)
        return True

    def _warn_of(self, trouble: str | None) -> None:
        if trouble is not None and not self._warned:
            self._warned = True
            log.warning(waiting_text(self.store, trouble, self._outbox))


def _now() -> int:
    return int(time.time() * 1000)


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value
