"""Gives a run's records to MLflow. Giving one twice has the same effect as once."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from redline.training.outbox.folder import Record, RunFolder

# What MLflow takes in one call.
_AT_MOST = {"metrics": 1000, "params": 100, "tags": 100}
# MLflow's codes for what it will never take. Other errors may be temporary.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"}


class Delivery:
    """To MLflow's run ``run_id``. What it will never take is noted and left out."""

    def __init__(self, client: MlflowClient, run_id: str, run: RunFolder) -> None:
        self.client, self.run_id, self.run = client, run_id, run

    def give(self, records: Sequence[Record]) -> None:
        """In their order; a record's kind names the method here. Raises where MLflow does not answer."""
        for kind, group in groupby(records, lambda record: record["kind"]):
            getattr(self, f"give_{kind}")(list(group))

    def give_start(self, records: Sequence[Record]) -> None:
        # For MLflow, a run that is resumed had ended.
        self._offer("start", self.client.update_run, "RUNNING")

    def give_end(self, records: Sequence[Record]) -> None:
        self._offer("end", self.client.set_terminated, records[-1]["status"], records[-1]["time"])

    def give_metrics(self, records: Sequence[Record]) -> None:
        metrics = [
            Metric(key, value, record["time"], record["step"])
            for record in records
            for key, value in record["values"].items()
        ]
        self._log("metrics", metrics)

    def give_tags(self, records: Sequence[Record]) -> None:
        self._log(
            "tags", [RunTag(key, value) for record in records for key, value in record["values"].items()]
        )

    def give_params(self, records: Sequence[Record]) -> None:
        """A resumed run keeps the parameters it began with, which MLflow does not let one change; each that
        is different now is a tag ``changed/<parameter>``.
        """
        before = self.client.get_run(self.run_id).data.params
        now = {key: value for record in records for key, value in record["values"].items()}
        changed = {key: value for key, value in now.items() if before.get(key, value) != value}
        self._log("params", [Param(key, value) for key, value in now.items() if key not in before])
        self._log("tags", [RunTag(f"changed/{key}", value) for key, value in changed.items()])

    def give_artifact(self, records: Sequence[Record]) -> None:
        for name in (record["name"] for record in records):
            path = self.run.file(name)
            if path.exists():  # else it was sent, and the sender killed before it could note that
                self._offer(name, self.client.log_artifact, str(path), name.rpartition("/")[0] or None)

    def _log(self, kind: str, items: list[Any]) -> None:
        """In halves where they are too many, or where one of them is refused."""
        what = (
            f"{kind}: {items[0].key} at step {getattr(items[0], 'step', None)}" if len(items) == 1 else None
        )
        few = len(items) <= _AT_MOST[kind]
        if items and not (few and self._offer(what, self.client.log_batch, **{kind: items})) and what is None:
            middle = len(items) // 2
            self._log(kind, items[:middle])
            self._log(kind, items[middle:])

    def _offer(self, what: str | None, call: Callable[..., object], *arguments: Any, **more: Any) -> bool:
        """Whether MLflow takes it. ``what`` is noted where it will never do."""
        try:
            call(self.run_id, *arguments, **more)
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            if what is not None:
                self.run.refuse(what, error)
            return False
        return True
