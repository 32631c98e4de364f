"""MLflow's store: opened, and made where there is none."""

import os
from collections.abc import Set
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from redline.database import first_opening, make_whole
from redline.tracked_runs import RUN_KEY, all_runs


def open_store(tracking_uri: str) -> MlflowClient:
    """A client of the store, whose tables are there. Raises whatever the driver does where it is not."""
    # One answer in time, or an attempt of ours later: MLflow's own retries would take minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    if _is_server(tracking_uri):
        return MlflowClient(tracking_uri)
    with first_opening(tracking_uri):
        make_whole(tracking_uri, lambda uri: MlflowClient(uri).search_experiments(max_results=1))
        client = MlflowClient(tracking_uri)
        client.search_experiments(max_results=1)
    return client


def open_experiment(client: MlflowClient, name: str, artifact_location: str) -> str:
    """The experiment's id. A server has a place for artifacts, a database's are at ``artifact_location``."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    location = None
    if not _is_server(client.tracking_uri):
        location = (
            artifact_location if "://" in artifact_location else Path(artifact_location).resolve().as_uri()
        )
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id  # somebody else was quicker


def end_forgotten(client: MlflowClient, experiment: str, written: Set[str]) -> None:
    """Mark as KILLED what claims to run, but for the runs of the keys ``written``: its machine is gone."""
    for run in all_runs(client, experiment, "attributes.status = 'RUNNING'"):
        if run.data.tags.get(RUN_KEY) not in written:
            client.set_terminated(run.info.run_id, "KILLED")


def _is_server(tracking_uri: str) -> bool:
    return tracking_uri.startswith(("http://", "https://"))
