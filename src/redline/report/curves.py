"""Runs' curves, read from MLflow when they are asked for."""

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from redline.secrets import without_password
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


@dataclass(frozen=True)
class TrackedRun:
    """What a store of MLflow holds of a run; by default, of one that no store has."""

    store: str = ""
    run_id: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)  # the last of each
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)  # as in ``model/width``


class Curves:
    """Of one search, from every store of MLflow that its variants' runs are in.

    A store that has failed to answer is asked no more; a run that it lacks is no failure.
    """

    def __init__(self, search: str, tracking_uris: Sequence[str]) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.troubles: dict[str, str] = {}  # store -> why it gives nothing
        self._search = search
        self._stores = tracking_uris
        self.history = cache(self._ask_for_history)
        for uri in tracking_uris:
            file = make_url(uri).database if uri.startswith("sqlite:") else None
            if uri.startswith("sqlite:") and not Path(file or "").is_file():
                self.troubles[uri] = f"MLflow's store is not there ({file})"

    @property
    def trouble(self) -> str | None:
        """Why there are no curves, or not all; None where all is well."""
        if not self._stores:
            return "nothing was tracked (no MLflow)"
        return next((self.troubles[uri] for uri in self._stores if uri in self.troubles), None)

    def find(self, variant: str, number: int) -> TrackedRun:
        """The run of a trial, by its tags, in the experiment that is named like the search."""
        return self._runs.get((variant, str(number)), TrackedRun())

    @cached_property
    def _runs(self) -> dict[tuple[str | None, str | None], TrackedRun]:
        found: dict[tuple[str | None, str | None], TrackedRun] = {}
        nothing: list[Run] = []
        for uri in reversed(self._stores):  # of a run in two stores, that in the first counts
            for run in self._ask(uri, lambda client: all_runs(client, self._search), nothing):
                data = run.data
                found[trial_of(run)] = TrackedRun(uri, run.info.run_id, data.metrics, data.params)
        return found

    def _ask_for_history(self, run: TrackedRun, metric: str) -> pd.Series:
        """Step -> value, NaN and infinite ones too."""
        points: Sequence[Metric] = []
        run_id = run.run_id
        if run_id is not None and metric in run.metrics:
            points = self._ask(run.store, lambda client: client.get_metric_history(run_id, metric), [])
        # A run that was gone on with has some steps twice: the later one counts.
        latest = {point.step: point.value for point in sorted(points, key=lambda point: point.timestamp)}
        # MLflow stores an infinity as the largest double.
        largest = sys.float_info.max
        curve = pd.Series(latest, dtype=float).replace({largest: math.inf, -largest: -math.inf})
        return curve.sort_index()

    def _ask(self, uri: str, question: "Callable[[MlflowClient], T]", otherwise: T) -> T:
        if uri in self.troubles:
            return otherwise
        from mlflow import MlflowClient  # seconds to import, and not always needed
        from mlflow.exceptions import MlflowException

        try:
            return question(MlflowClient(uri))
        except (MlflowException, SQLAlchemyError) as error:
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                reason = without_password(str(error).strip().partition("\n")[0])
                self.troubles[uri] = f"MLflow did not answer ({reason})"
            return otherwise


def trial_of(run: "Run") -> tuple[str | None, str | None]:
    """The variant and the trial's number, by the tags of a run in MLflow."""
    return run.data.tags.get("variant"), run.data.tags.get("trial")
