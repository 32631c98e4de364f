"""Gives records of one run to MLflow. Giving a record twice leaves what giving it once does."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

# What MLflow takes in one call.
_MAX_METRICS = 1000
_MAX_OTHERS = 100
# What MLflow says of something that it will never take. All else may pass.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"}

Record = dict[str, Any]


class Delivery:
    """To the run ``run_id``; ``refuse`` is told of what MLflow will never take, and why."""

    def __init__(self, client: MlflowClient, run_id: str, refuse: Callable[[str, Exception], None]) -> None:
        self.client, self.run_id, self.refuse = client, run_id, refuse

    def give(self, records: Sequence[Record], file: Callable[[str], Path]) -> None:
        """In their order; ``file`` finds an artifact by its name. Raises where MLflow does not answer."""
        for kind, group in groupby(records, lambda record: record["kind"]):
            if kind == "metrics":
                self._metrics(list(group))
                continue
            for record in group:
                if kind == "params":
                    self._params(record["values"])
                elif kind == "tags":
                    self._tags(record["values"])
                elif kind == "artifact":
                    self._artifact(file(record["name"]), record["name"])
                elif kind == "start":  # a run that is gone on with is a running one again
                    self._offer(kind, lambda: self.client.update_run(self.run_id, status="RUNNING"))
                else:
                    assert kind == "end"
                    status, time = record["status"], record["time"]
                    self._offer(kind, lambda: self.client.set_terminated(self.run_id, status, time))  # noqa: B023

    def _metrics(self, records: Sequence[Record]) -> None:
        metrics = [
            Metric(key, value, record["time"], record["step"])
            for record in records
            for key, value in record["values"].items()
        ]
        for start in range(0, len(metrics), _MAX_METRICS):
            self._batch(metrics[start : start + _MAX_METRICS])

    def _batch(self, metrics: list[Metric]) -> None:
        """What is refused for the sake of one is given in halves."""
        try:
            self.client.log_batch(self.run_id, metrics=metrics)
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            if len(metrics) == 1:
                self.refuse(f"metric {metrics[0].key} at step {metrics[0].step}", error)
                return
            middle = len(metrics) // 2
            self._batch(metrics[:middle])
            self._batch(metrics[middle:])

    def _params(self, now: dict[str, str]) -> None:
        """A run that is gone on with keeps the parameters it began with, which MLflow does not let one
        change; each that is different now is a tag ``changed/<parameter>``.
        """
        before = self.client.get_run(self.run_id).data.params
        new = [Param(key, value) for key, value in now.items() if key not in before]
        for start in range(0, len(new), _MAX_OTHERS):
            batch = new[start : start + _MAX_OTHERS]
            self._offer("parameters", lambda: self.client.log_batch(self.run_id, params=batch))  # noqa: B023
        changed = {key: now[key] for key in now if before.get(key, now[key]) != now[key]}
        self._tags({f"changed/{key}": value for key, value in changed.items()})

    def _tags(self, values: dict[str, str]) -> None:
        tags = [RunTag(key, value) for key, value in values.items()]
        for start in range(0, len(tags), _MAX_OTHERS):
            batch = tags[start : start + _MAX_OTHERS]
            self._offer("tags", lambda: self.client.log_batch(self.run_id, tags=batch))  # noqa: B023

    def _artifact(self, path: Path, name: str) -> None:
        if not path.exists():
            return  # it was sent, and the sender killed before it could say so
        folder = name.rpartition("/")[0] or None
        self._offer(name, lambda: self.client.log_artifact(self.run_id, str(path), folder))

    def _offer(self, what: str, give: Callable[[], object]) -> None:
        try:
            give()
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            self.refuse(what, error)
