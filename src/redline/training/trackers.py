"""Where a run's metrics go. MLflow costs milliseconds a call, so steps are sent in batches."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger
from lightning.pytorch.loggers.logger import DummyLogger
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from omegaconf import DictConfig


def _as_uri(location: str) -> str:
    return location if "://" in location else Path(location).resolve().as_uri()


# What MLflow takes in one call.
_MAX_METRICS = 1000


class NoTracker(DummyLogger):
    """Keeps nothing."""

    run_id = None

    def __init__(self, **_: Any) -> None:
        super().__init__()

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        pass


class BufferedMLFlowLogger(MLFlowLogger):
    """Lightning's MLflow logger, writing once every ``flush_every`` logged steps.

    MLflow stores an infinity as the largest double, so each non-finite value also sets
    ``<metric>/non_finite`` to 1 at its step.
    """

    def __init__(self, *, tracking_uri: str, artifact_location: str, flush_every: int, **kwargs: Any) -> None:
        super().__init__(tracking_uri=tracking_uri, artifact_location=_as_uri(artifact_location), **kwargs)
        self._flush_every = flush_every
        self._buffer: list[Metric] = []
        self._steps_buffered: set[int] = set()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        now, step = int(time.time() * 1000), step or 0
        for key, value in metrics.items():
            self._buffer.append(Metric(key, float(value), now, step))
            if not math.isfinite(value):
                self._buffer.append(Metric(f"{key}/non_finite", 1.0, now, step))
        self._steps_buffered.add(step)
        if len(self._steps_buffered) >= self._flush_every:
            self.save()

    def save(self) -> None:
        """Send what is buffered."""
        for start in range(0, len(self._buffer), _MAX_METRICS):
            self.experiment.log_batch(self.run_id, metrics=self._buffer[start : start + _MAX_METRICS])
        self._buffer.clear()
        self._steps_buffered.clear()

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        self.experiment.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def finalize(self, status: str = "success") -> None:
        self.save()
        # The run is ended by whoever knows how it ended: `fit` and `validate` both finalize.


def prepare_tracker(spec: DictConfig, experiment: str) -> None:
    """Create the tracker's store and experiment, once, before several processes open them."""
    if spec.get("tracking_uri") is None:
        return
    client = MlflowClient(spec.tracking_uri)
    if client.get_experiment_by_name(experiment) is None:
        client.create_experiment(experiment, artifact_location=_as_uri(spec.artifact_location))


def end_run(tracker: Logger, status: str) -> None:
    """Mark a tracked run as FINISHED, FAILED or KILLED."""
    if isinstance(tracker, BufferedMLFlowLogger):
        tracker.save()
        tracker.experiment.set_terminated(tracker.run_id, status)
