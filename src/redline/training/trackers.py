"""Where a run's metrics go. MLflow costs milliseconds a call, so steps are sent in batches."""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger
from lightning.pytorch.loggers.logger import DummyLogger
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from omegaconf import DictConfig

from redline.database import first_opening, make_whole, with_driver

# What MLflow takes in one call.
_MAX_METRICS = 1000
_MAX_PARAMS = 100


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

    def __init__(
        self,
        *,
        experiment_name: str,
        tracking_uri: str,
        artifact_location: str,
        flush_every: int,
        **kwargs: Any,
    ) -> None:
        tracking_uri = with_driver(tracking_uri)
        _open_store(tracking_uri, experiment_name, artifact_location)
        super().__init__(experiment_name=experiment_name, tracking_uri=tracking_uri, **kwargs)
        self._flush_every = flush_every
        self._buffer: list[Metric] = []
        self._steps_buffered: set[int] = set()

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        """A run that is gone on with keeps the parameters it began with, which MLflow does not let one
        change; each that is different now is a tag ``changed/<parameter>``.
        """
        before = self.experiment.get_run(self.run_id).data.params
        now = {key: str(value) for key, value in _flat(params)}
        new = [Param(key, value) for key, value in now.items() if key not in before]
        for start in range(0, len(new), _MAX_PARAMS):
            self.experiment.log_batch(self.run_id, params=new[start : start + _MAX_PARAMS])
        self.set_tags({f"changed/{key}": now[key] for key in now if before.get(key, now[key]) != now[key]})

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
    _open_store(with_driver(spec.tracking_uri), experiment, spec.artifact_location)


def _open_store(tracking_uri: str, experiment: str, artifact_location: str) -> None:
    with first_opening(tracking_uri):
        make_whole(tracking_uri, lambda uri: MlflowClient(uri).search_experiments(max_results=1))
        client = MlflowClient(tracking_uri)
        if client.get_experiment_by_name(experiment) is None:
            if "://" not in artifact_location:
                artifact_location = Path(artifact_location).resolve().as_uri()
            client.create_experiment(experiment, artifact_location=artifact_location)


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def end_run(tracker: Logger, status: str) -> None:
    """Mark a tracked run as FINISHED, FAILED or KILLED."""
    if isinstance(tracker, BufferedMLFlowLogger):
        tracker.save()
        tracker.experiment.set_terminated(tracker.run_id, status)
