"""Runs' curves, read from MLflow when they are asked for."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from redline.report.search import Curve, Curves
from redline.tracked_runs import all_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

T = TypeVar("T")

# A server that is gone must cost a report seconds, not the quarter of an hour that MLflow would try for.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def open_curves(tracking_uri: str | None) -> Curves:
    """The curves behind ``tracking_uri``; where there are none, `Curves.trouble` says why."""
    if tracking_uri is None:
        return NoCurves("nothing was tracked (no MLflow)")
    if tracking_uri.startswith("sqlite:"):
        file = make_url(tracking_uri).database
        if file is None or not Path(file).is_file():
            return NoCurves(f"MLflow's store is not there ({file})")
    return MLflowCurves(tracking_uri)


class NoCurves:
    """Of a search whose runs were not tracked."""

    def __init__(self, trouble: str) -> None:
        self.trouble: str | None = trouble

    def run_id(self, search: str, run_key: str) -> str | None:
        return None

    def metrics(self, run_id: str) -> frozenset[str]:
        return frozenset()

    def history(self, run_id: str, metric: str) -> Curve:
        return Curve.of({})

    def parameters(self, run_id: str) -> Mapping[str, str]:
        return {}


class MLflowCurves:
    """Asks MLflow, and asks it no more once it has failed to answer; a run that it lacks is no failure."""

    def __init__(self, tracking_uri: str) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.trouble: str | None = None
        self._tracking_uri = tracking_uri
        self._client: MlflowClient | None = None
        self._run_ids = cache(self._ask_for_run_ids)
        self._run = cache(self._ask_for_run)
        self._history = cache(self._ask_for_history)

    def run_id(self, search: str, run_key: str) -> str | None:
        """Of a run that had ended before MLflow had it: found by its tag."""
        return self._run_ids(search).get(run_key)

    def metrics(self, run_id: str) -> frozenset[str]:
        run = self._run(run_id)
        return frozenset() if run is None else frozenset(run.data.metrics)

    def history(self, run_id: str, metric: str) -> Curve:
        return self._history(run_id, metric)

    def parameters(self, run_id: str) -> Mapping[str, str]:
        run = self._run(run_id)
        return {} if run is None else run.data.params

    def _ask_for_run_ids(self, search: str) -> dict[str, str]:
        nothing: list[Run] = []
        runs = self._ask(lambda client: all_runs(client, search), nothing)
        return {run.data.tags["run_key"]: run.info.run_id for run in runs if "run_key" in run.data.tags}

    def _ask_for_run(self, run_id: str) -> "Run | None":
        return self._ask(lambda client: client.get_run(run_id), None)

    def _ask_for_history(self, run_id: str, metric: str) -> Curve:
        points: Sequence[Metric] = self._ask(lambda client: client.get_metric_history(run_id, metric), [])
        # A run that was gone on with has some steps twice: the later one counts.
        latest = {point.step: point.value for point in sorted(points, key=lambda point: point.timestamp)}
        return Curve.of({step: _unclipped(value) for step, value in latest.items()})

    def _ask(self, question: "Callable[[MlflowClient], T]", otherwise: T) -> T:
        if self.trouble is not None:
            return otherwise
        from mlflow.exceptions import MlflowException  # seconds to import, and not always needed

        try:
            return question(self._opened())
        except (MlflowException, SQLAlchemyError) as error:
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                reason = str(error).strip().partition("\n")[0]
                self.trouble = f"MLflow did not answer ({reason})"
            return otherwise

    def _opened(self) -> "MlflowClient":
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self._tracking_uri)
        return self._client


def _unclipped(value: float) -> float:
    """MLflow stores an infinity as the largest double."""
    largest = sys.float_info.max
    return float("inf") if value >= largest else float("-inf") if value <= -largest else value
