"""The end of a search: its report as a job, and its one summary run."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from redline.report.job import publish
from redline.report.load import read_search
from redline.report.stores import Stores
from redline.report.summary import publish_summary


def payload(stores: Stores, search: str, **changed: object) -> dict:
    directory = str(stores.searches / search)
    its = {"search": search, "storage": stores.storage, "tracking_uri": stores.tracking_uri}
    return {**its, "directory": directory, "reference": "qk", **changed}


def test_every_end_of_a_search_updates_one_summary_run(stores: Stores) -> None:
    done = publish(payload(stores, "one-variant"), lambda message: None)
    assert done["trouble"] is None
    assert stores.tracking_uri is not None
    publish_summary(read_search(stores, "one-variant"), stores.tracking_uri, [Path(done["path"])])
    client = MlflowClient(stores.tracking_uri)
    experiment = client.get_experiment_by_name("one-variant")
    assert experiment is not None
    [summary] = client.search_runs([experiment.experiment_id], "tags.summary = 'true'")
    assert (summary.info.run_name, summary.info.status) == ("summary", "FINISHED")
    assert summary.data.tags["search"] == "one-variant"
    entry = json.loads((stores.searches / "one-variant" / "result.json").read_text())["variants"]["qk"]
    assert entry["max_stable_lr"] is None
    headlines = {"best_lr", "best_val_loss", "trials", "optimizer_steps", "grid_steps"}
    assert summary.data.metrics == {f"{key}/qk": entry[key] for key in headlines}
    kept = {file.path for file in client.list_artifacts(summary.info.run_id)}
    beside = {path.name for path in Path(done["path"]).parent.iterdir()}
    assert kept == {"result.json", *beside}
    assert "report.html" in kept


def test_a_variants_edge_is_a_metric_whatever_its_name(stores: Stores) -> None:
    assert stores.tracking_uri is not None
    publish_summary(read_search(stores, "full"), stores.tracking_uri, [])
    client = MlflowClient(stores.tracking_uri)
    experiment = client.get_experiment_by_name("full")
    assert experiment is not None
    [summary] = client.search_runs([experiment.experiment_id], "tags.summary = 'true'")
    edges = {key: value for key, value in summary.data.metrics.items() if key.startswith("max_stable_lr/")}
    assert edges == {"max_stable_lr/baseline": 0.05, "max_stable_lr/qk_ data.path__b_a__x__ _ _y____b_": 0.1}


def test_a_search_that_is_not_tracked_has_a_report_all_the_same(stores: Stores) -> None:
    done = publish(payload(stores, "untracked", tracking_uri=None), lambda message: None)
    assert done["trouble"] is None
    assert Path(done["path"]).is_file()
    assert MlflowClient(stores.tracking_uri).get_experiment_by_name("untracked") is None


@pytest.mark.parametrize("gone", ["store", "experiment"])
def test_a_tracker_that_is_gone_costs_the_copy_and_not_the_report(
    stores: Stores, tmp_path: Path, gone: str
) -> None:
    uri = f"sqlite:///{tmp_path}/gone.db" if gone == "store" else stores.tracking_uri
    done = publish(payload(stores, "untracked", tracking_uri=uri), lambda message: None)
    assert "MLflow" in done["trouble"]
    assert Path(done["path"]).is_file()
