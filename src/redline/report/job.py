"""What is done at a search's end, in a process of its own: the report, and its copy in MLflow."""

import logging
import re
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from redline.report.curves import trial_of
from redline.report.load import search_in
from redline.report.page import write_report
from redline.report.search import Search
from redline.secrets import without_password
from redline.tracked_runs import all_runs

_HEADLINES = (
    "max_useful_lr",
    "max_stable_lr",
    "max_useful_rung",
    "max_stable_rung",
    "first_diverged_lr",
    "val_loss",
    "val_perplexity",
    "best_lr",
    "best_val_loss",
    "trials",
    "optimizer_steps",
    "grid_steps",
)


def publish(
    search: str, storage: str, tracking_uris: Sequence[str], directory: Path, reference: str
) -> tuple[Path, str | None]:
    """Write the report beside ``result.json``, and the search's summary into every store that tracked it.

    Gives the report's path, and why MLflow has no copy, or one store of several has none.
    """
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    found = search_in(storage, tracking_uris, search)
    path = write_report(found, directory / "report", reference)
    artifacts = [directory / "result.json", path, *sorted(path.parent.glob("*.png"))]
    # A store that did not answer the report is not asked again.
    troubles = [
        found.curves.troubles.get(uri) or _try_to_copy(found, uri, artifacts) for uri in tracking_uris
    ]
    return path, "; ".join(filter(None, troubles)) or None


def _try_to_copy(search: Search, tracking_uri: str, artifacts: Iterable[Path]) -> str | None:
    try:
        publish_summary(search, tracking_uri, artifacts)
    except (MlflowException, SQLAlchemyError, LookupError, OSError) as error:
        return without_password(str(error).strip().partition("\n")[0])
    return None


def publish_summary(search: Search, tracking_uri: str, artifacts: Iterable[Path]) -> str:
    """Write the headline numbers and ``artifacts`` into the search's one summary run; gives its id.

    Metrics are named as in ``max_useful_lr/qk``. Runs that were told another verdict than the search's
    are tagged with that. Raises LookupError where the search is not tracked there, MlflowException where the
    store does not take them.
    """
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name(search.name)
    if experiment is None:
        raise LookupError(f"MLflow has no experiment {search.name}")
    _tag_verdicts(client, search)
    run_id = _summary_run(client, experiment.experiment_id, search.name)
    now = int(time.time() * 1000)
    metrics = [
        Metric(f"{key}/{_metric_name(name)}", float(value), now, 0)
        for name, its in search.result.variants.items()
        for key in _HEADLINES
        if (value := getattr(its, key)) is not None
    ]
    client.log_batch(run_id, metrics=metrics)
    for path in artifacts:
        client.log_artifact(run_id, str(path))
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _tag_verdicts(client: MlflowClient, search: Search) -> None:
    tracked = {trial_of(run): run for run in all_runs(client, search.name)}
    for run in search.runs:
        its = tracked.get((run.variant, str(run.number)))
        if its is None or not run.finished:
            continue
        verdict = {"verdict": run.verdict, "reason": run.reason or ""}
        if any(its.data.tags.get(key, "") != value for key, value in verdict.items()):
            client.log_batch(its.info.run_id, tags=[RunTag(*tag) for tag in verdict.items()])


def _summary_run(client: MlflowClient, experiment_id: str, search: str) -> str:
    """The first of the search's summary runs, made where there is none.

    Several machines may end a search at once: each sees the other's run, and the second removes its own.
    """
    summaries = partial(
        client.search_runs, [experiment_id], "tags.summary = 'true'", order_by=["attributes.start_time"]
    )
    ours = None
    if not summaries():
        tags = {"summary": "true", "search": search}
        ours = client.create_run(experiment_id, run_name="summary", tags=tags).info.run_id
    first = summaries()[0].info.run_id
    if ours is not None and first != ours:
        client.delete_run(ours)
    return first


def _metric_name(variant: str) -> str:
    """A variant's name with the characters that MLflow allows."""
    return re.sub(r"[^\w.\- :]", "_", variant, flags=re.ASCII)
