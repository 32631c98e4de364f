"""Runs' curves, read from MLflow when they are asked for."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from redline.report.search import UNTRACKED, Curve, Curves, TrackedRun
from redline.secrets import without_password
from redline.tracked_runs import all_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run, RunData

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

    def find(self, search: str, variant: str, number: int) -> TrackedRun:
        return UNTRACKED


class ChainedCurves:
    """Of a search whose variants have different trackers: those of the first one that has the run."""

    def __init__(self, links: Sequence[Curves]) -> None:
        self._links = links

    @property
    def trouble(self) -> str | None:
        return next((its.trouble for its in self._links if its.trouble is not None), None)

    def find(self, search: str, variant: str, number: int) -> TrackedRun:
        found = (its.find(search, variant, number) for its in self._links)
        return next((run for run in found if run.run_id is not None), UNTRACKED)


class MLflowCurves:
    """Asks MLflow, and asks it no more once it has failed to answer; a run that it lacks is no failure."""

    def __init__(self, tracking_uri: str) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.trouble: str | None = None
        self._tracking_uri = tracking_uri
        self._runs = cache(self._ask_for_runs)
        self._history = cache(self._ask_for_history)

    def find(self, search: str, variant: str, number: int) -> TrackedRun:
        """By the tags of its trial, in the experiment that is named like the search."""
        return self._runs(search).get((variant, str(number)), UNTRACKED)

    def _ask_for_runs(self, search: str) -> dict[tuple[str | None, str | None], TrackedRun]:
        nothing: list[Run] = []
        runs = self._ask(lambda client: all_runs(client, search), nothing)
        return {trial_of(run): self._tracked(run.info.run_id, run.data) for run in runs}

    def _tracked(self, run_id: str, data: "RunData") -> TrackedRun:
        return TrackedRun(run_id, frozenset(data.metrics), data.params, partial(self._history, run_id))

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
            return question(self._client)
        except (MlflowException, SQLAlchemyError) as error:
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                reason = without_password(str(error).strip().partition("\n")[0])
                self.trouble = f"MLflow did not answer ({reason})"
            return otherwise

    @cached_property
    def _client(self) -> "MlflowClient":
        from mlflow import MlflowClient

        return MlflowClient(self._tracking_uri)


def trial_of(run: "Run") -> tuple[str | None, str | None]:
    """The variant and the trial's number, by the tags of a run in MLflow."""
    return run.data.tags.get("variant"), run.data.tags.get("trial")


def _unclipped(value: float) -> float:
    """MLflow stores an infinity as the largest double."""
    largest = sys.float_info.max
    return float("inf") if value >= largest else float("-inf") if value <= -largest else value
