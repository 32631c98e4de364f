"""MLflow's store: opened, and made where there is none."""

import os
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from redline.database import first_opening, make_whole
from redline.secrets import without_password


def open_store(tracking_uri: str) -> MlflowClient:
    """A client of the store, whose tables are there. Raises whatever the driver does where it is not."""
    # We retry ourselves: MLflow's own retries would take minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    if not _is_server(tracking_uri):
        with first_opening(tracking_uri):
            make_whole(tracking_uri, lambda uri: MlflowClient(uri).search_experiments(max_results=1))
            MlflowClient(tracking_uri).search_experiments(max_results=1)
    return MlflowClient(tracking_uri)


def open_experiment(client: MlflowClient, name: str, artifact_location: str) -> str:
    """The experiment's id. A server has a place for artifacts, a database's are at ``artifact_location``."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    if "://" not in artifact_location:
        artifact_location = Path(artifact_location).resolve().as_uri()
    location = None if _is_server(client.tracking_uri) else artifact_location
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id  # another process created it


def in_one_line(error: BaseException) -> str:
    """The first error's message, without a password: clients wrap it in long ones."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    words = without_password(" ".join(str(error).split())) or type(error).__name__
    return words if len(words) < 200 else f"{words[:200]}…"


def _is_server(tracking_uri: str) -> bool:
    return tracking_uri.startswith(("http://", "https://"))
