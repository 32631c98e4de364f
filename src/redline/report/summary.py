"""The summary run: what a search found, in MLflow beside the runs that it is of."""

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from redline.report.search import Search, Variant

_HEADLINES = (
    "max_stable_lr",
    "first_diverged_lr",
    "val_loss",
    "val_perplexity",
    "best_lr",
    "best_val_loss",
    "trials",
    "optimizer_steps",
    "grid_steps",
)


def publish_summary(search: Search, tracking_uri: str, artifacts: Iterable[Path]) -> str:
    """Write the headline numbers and ``artifacts`` into the search's one summary run; gives its id.

    Metrics are named as in ``max_stable_lr/qk``. Raises LookupError where the search is not tracked there,
    MlflowException where the store does not take them.
    """
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name(search.name)
    if experiment is None:
        raise LookupError(f"MLflow has no experiment {search.name}")
    run_id = _the_run(client, experiment.experiment_id, search.name)
    now = int(time.time() * 1000)
    metrics = [
        Metric(f"{key}/{_metric_name(variant.name)}", float(value), now, 0)
        for variant in search.variants
        for key, value in _headlines(variant)
    ]
    client.log_batch(run_id, metrics=metrics)
    for path in artifacts:
        client.log_artifact(run_id, str(path))
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _headlines(variant: Variant) -> list[tuple[str, Any]]:
    entry = variant.entry or {}
    return [(key, entry[key]) for key in _HEADLINES if entry.get(key) is not None]


def _the_run(client: MlflowClient, experiment_id: str, search: str) -> str:
    """The first of the search's summary runs, made where there is none.

    Several machines may end a search at once: each sees the other's run, and the second removes its own.
    """
    found = _summaries(client, experiment_id)
    if found:
        return found[0].info.run_id
    tags = {"summary": "true", "search": search}
    ours = client.create_run(experiment_id, run_name="summary", tags=tags).info.run_id
    first = _summaries(client, experiment_id)[0].info.run_id
    if first != ours:
        client.delete_run(ours)
    return first


def _summaries(client: MlflowClient, experiment_id: str) -> list[Run]:
    found = client.search_runs([experiment_id], "tags.summary = 'true'")
    return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def _metric_name(variant: str) -> str:
    """A variant's name with the characters that MLflow allows."""
    return re.sub(r"[^\w.\- :]", "_", variant, flags=re.ASCII)
