"""The runs of an experiment in MLflow, page by page."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_KEY = "run_key"  # the tag by which a run is found, even if MLflow's answer to its creation was lost


def all_runs(client: "MlflowClient", experiment: str, where: str = "") -> "list[Run]":
    """None where there is no such experiment. ``where``: MLflow's filter. Raises MlflowException."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    page = client.search_runs([found.experiment_id], where)
    runs = list(page)
    while page.token:
        page = client.search_runs([found.experiment_id], where, page_token=page.token)
        runs += page
    return runs
