"""The end of a search: its report, and its one summary run in every tracker."""

import json
from pathlib import Path

import pytest
from made_up_store import Fake, Stores, add_search, make_stores, read_search
from mlflow import MlflowClient
from mlflow.entities import Run

from redline.report.job import publish, publish_summary


def published(stores: Stores, search: str, *tracking_uris: str) -> tuple[Path, str | None]:
    return publish(search, stores.storage, tracking_uris, stores.searches / search, "qk")


def runs_of(tracking_uri: str, search: str, where: str) -> list[Run]:
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name(search)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], where))


def test_every_end_of_a_search_updates_one_summary_run(stores: Stores) -> None:
    assert stores.tracking_uri is not None
    path, trouble = published(stores, "one-variant", stores.tracking_uri)
    assert trouble is None
    publish_summary(read_search(stores, "one-variant"), stores.tracking_uri, [path])
    [summary] = runs_of(stores.tracking_uri, "one-variant", "tags.summary = 'true'")
    assert (summary.info.run_name, summary.info.status) == ("summary", "FINISHED")
    assert summary.data.tags["search"] == "one-variant"
    entry = json.loads((stores.searches / "one-variant" / "result.json").read_text())["variants"]["qk"]
    assert entry["max_useful_lr"] is None
    headlines = {"best_lr", "best_val_loss", "trials", "optimizer_steps", "grid_steps"}
    assert summary.data.metrics == {f"{key}/qk": entry[key] for key in headlines}
    artifacts = MlflowClient(stores.tracking_uri).list_artifacts(summary.info.run_id)
    beside = {path.name for path in path.parent.iterdir()}
    assert {file.path for file in artifacts} == {"result.json", *beside}
    assert "report.html" in beside


def test_a_variants_edge_is_a_metric_whatever_its_name(stores: Stores) -> None:
    assert stores.tracking_uri is not None
    publish_summary(read_search(stores, "full"), stores.tracking_uri, [])
    [summary] = runs_of(stores.tracking_uri, "full", "tags.summary = 'true'")
    edges = {key: value for key, value in summary.data.metrics.items() if key.startswith("max_useful_rung/")}
    odd = "qk_ data.path__b_a__x__ _ _y____b_"
    assert edges == {"max_useful_rung/baseline": 0.05, f"max_useful_rung/{odd}": 0.1}
    assert summary.data.metrics[f"max_useful_lr/{odd}"] == pytest.approx(0.12)


def test_a_run_that_the_search_cut_is_tagged(tmp_path: Path) -> None:
    """The run itself cannot know it: MLflow has it as stable."""
    stores = make_stores(tmp_path)
    assert stores.tracking_uri is not None
    fakes = [Fake(0), Fake(1, val_loss=None, cut=4.5), Fake(2, val_loss=None, reason="blow_up")]
    add_search(stores, "cut", {"qk": fakes})
    for expected in "stable", "cut":
        [cut] = runs_of(stores.tracking_uri, "cut", "tags.lr = '0.05'")
        assert (cut.data.tags["verdict"], cut.data.tags["reason"]) == (expected, "")
        publish_summary(read_search(stores, "cut"), stores.tracking_uri, [])
    others = {
        its.data.tags["lr"]: its.data.tags for its in runs_of(stores.tracking_uri, "cut", "tags.lr != '0.05'")
    }
    assert {lr: (tags["verdict"], tags["reason"]) for lr, tags in others.items()} == {
        "0.02": ("stable", ""),
        "0.1": ("diverged", "blow_up"),
    }


def test_a_search_that_is_not_tracked_has_a_report_all_the_same(stores: Stores) -> None:
    path, trouble = published(stores, "untracked")
    assert trouble is None
    assert path.is_file()
    assert MlflowClient(stores.tracking_uri).get_experiment_by_name("untracked") is None


@pytest.mark.parametrize("gone", ["store", "experiment"])
def test_a_tracker_that_is_gone_costs_the_copy_and_not_the_report(
    stores: Stores, tmp_path: Path, gone: str
) -> None:
    assert stores.tracking_uri is not None
    uri = f"sqlite:///{tmp_path}/gone.db" if gone == "store" else stores.tracking_uri
    path, trouble = published(stores, "untracked", uri)
    assert trouble is not None
    assert "MLflow" in trouble
    assert path.is_file()


def test_of_several_trackers_one_that_is_gone_costs_no_other_its_copy(stores: Stores, tmp_path: Path) -> None:
    assert stores.tracking_uri is not None
    _, trouble = published(stores, "all-diverged", f"sqlite:///{tmp_path}/gone.db", stores.tracking_uri)
    assert trouble is not None
    assert "gone.db" in trouble
    assert len(runs_of(stores.tracking_uri, "all-diverged", "tags.summary = 'true'")) == 1
