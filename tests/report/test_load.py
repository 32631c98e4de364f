"""What a search looks like once it is read back."""

import json
import math
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_store import LADDER, ODD_NAME, Stores, read_search
from mlflow import MlflowClient
from sqlalchemy import make_url

from redline.errors import UserError
from redline.report import load_search, write_report
from redline.report.__main__ import main
from redline.report.load import search_in
from redline.search.result import SearchResult


def load(stores: Stores, name: str | None = None):
    return load_search(name, storage=stores.storage, tracking_uri=stores.tracking_uri)


def test_the_latest_search_is_the_default(stores: Stores) -> None:
    search = load(stores)
    assert (search.name, search.finished, search.seeds) == ("full", True, 2)
    assert search.ladder == tuple(LADDER)
    assert [variant.name for variant in search.variants] == ["baseline", ODD_NAME]
    assert (search.key, search.label) == ("lr", "LR")
    with pytest.raises(KeyError, match="baseline"):
        search.variant("qkw")


def test_a_runs_verdict_is_its_own_and_a_crash_or_a_cut_is_no_divergence(stores: Stores) -> None:
    runs = {(run.value, run.seed): run for run in load(stores).variant(ODD_NAME).runs}
    lost, cut, crashed = runs[0.2, 0], runs[0.2, 1], runs[0.5, 0]
    assert (lost.verdict, lost.reason, lost.shown_loss) == ("stable", None, 4.5)
    assert (cut.verdict, cut.reason, cut.val_loss, cut.shown_loss) == ("cut", None, None, 4.75)
    assert (crashed.verdict, crashed.reason, crashed.val_loss) == ("crashed", None, None)
    variant = load(stores).variant(ODD_NAME)
    assert [run.value for run in variant.finished_runs] == [0.02, 0.1, 0.1, 0.2, 0.2]
    assert list(variant.losses) == [4.125, 4.0, 4.0, 4.5]  # without the run that was cut


def test_curves_keep_nan_and_infinity(stores: Stores) -> None:
    run = next(run for run in load(stores).variant("baseline").runs if run.reason == "non_finite")
    curve = run.history("norm/fc2/layer_01")
    assert list(curve.index) == [0, 10, 20, 30]
    assert curve[20] == math.inf
    assert math.isnan(curve[30])
    assert run.history("norm/fc2/layer_99").empty
    assert "norm/qkv/layer_00" in run.tracked.metrics


def test_the_pair_is_of_one_seed_on_both_sides_of_the_edge(stores: Stores) -> None:
    baseline = load(stores).variant("baseline")
    useful, above = baseline.pair
    assert useful is not None
    assert above is not None
    assert (useful.value, useful.verdict, above.value, above.verdict) == (0.05, "stable", 0.1, "diverged")
    assert useful.seed == above.seed
    others = tuple(run for run in baseline.finished_runs if run != above)
    useful, above = replace(baseline, runs=others).pair
    assert useful is not None
    assert above is not None
    assert (useful.seed, above.seed) == (1, 1)
    assert load(stores, "one-variant").variant("qk").pair.above is None
    assert load(stores, "all-diverged").variant("qk").pair.useful is None


def test_the_run_above_the_edge_may_be_stable_and_lost(stores: Stores) -> None:
    useful, above = load(stores).variant(ODD_NAME).pair
    assert useful is not None
    assert above is not None
    assert (useful.value, above.value, above.verdict) == (0.1, 0.2, "stable")


def test_where_mlflow_is_gone_there_are_no_curves(stores: Stores, tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_text("no database")
    for uri, why in (
        (f"sqlite:///{tmp_path}/none.db", "not there"),
        (f"sqlite:///{broken}", "did not answer"),
    ):
        search = read_search(Stores(stores.storage, uri, stores.searches), "full")
        run = search.runs[0]
        assert run.history("train/loss").empty
        assert run.tracked.metrics == {}
        assert search.curves.trouble is not None
        assert why in search.curves.trouble
    assert not (tmp_path / "none.db").exists()


def test_a_run_is_found_in_mlflow_by_the_tags_of_its_trial(stores: Stores) -> None:
    """Nothing in the study names it: MLflow may have had it only after its end."""
    run = next(run for run in load(stores).variant("baseline").runs if (run.value, run.seed) == (0.05, 1))
    assert not run.history("norm/qkv/layer_00").empty
    assert run.tracked.run_id is not None
    tags = MlflowClient(stores.tracking_uri).get_run(run.tracked.run_id).data.tags
    assert (tags["search"], tags["variant"], tags["trial"]) == ("full", "baseline", str(run.number))
    assert (tags["lr"], tags["seed"]) == ("0.05", "1")


def test_variants_may_have_different_trackers(stores: Stores, tmp_path: Path) -> None:
    others = f"sqlite:///{tmp_path}/none.db"
    assert stores.tracking_uri is not None
    search = search_in(stores.storage, [others, stores.tracking_uri], "full")
    assert [run.tracked.run_id for run in search.runs] == [run.tracked.run_id for run in load(stores).runs]
    assert len(search.runs[0].history("val/loss")) == 1
    assert search.curves.trouble is not None
    assert "none.db" in search.curves.trouble
    assert list(search.curves.troubles) == [others]
    assert replace(search.runs[0], number=99).tracked.run_id is None


def test_a_run_that_mlflow_lacks_does_not_hide_the_others(stores: Stores) -> None:
    search = load(stores)
    gone = replace(search.runs[0], number=99)
    assert (gone.tracked.run_id, gone.tracked.metrics) == (None, {})
    assert gone.history("val/loss").empty
    assert search.curves.trouble is None
    assert len(search.runs[0].history("val/loss")) == 1


def test_an_end_that_another_machine_saw_is_read_from_the_storage(stores: Stores, tmp_path: Path) -> None:
    """`result.json` is in a folder that this machine does not see."""
    search = read_search(Stores(stores.storage, None, tmp_path), "full")
    assert search.curves.trouble == "nothing was tracked (no MLflow)"
    assert search.finished
    assert search.result == SearchResult.read(stores.searches / "full" / "result.json")
    assert search.variant("baseline").edge == pytest.approx(0.06)
    assert (search.result.criterion, search.result.claim) == ("both", 1.5)
    assert search.result.recipe["weight_decay"] == 0.1


def test_before_the_end_the_edge_is_what_is_known_of_it(stores: Stores) -> None:
    search = load(stores, "running")
    assert (search.finished, search.result.variants) == (False, {})
    edges = [(its.largest_stable, its.first_diverged) for its in search.variants]
    assert edges == [(0.02, 0.2), (None, None)]


def test_what_was_searched_need_not_be_a_learning_rate(stores: Stores) -> None:
    search = read_search(replace(stores, tracking_uri=None), "other")
    assert (search.key, search.searched, search.loss_name) == ("weight_decay", "weight decay", "final score")
    assert search.variants[0].facts.max_steps is None
    assert [(run.value, run.val_perplexity) for run in search.variants[1].runs] == [
        (0.02, None),
        (0.05, None),
    ]


def ask(stores: Stores, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    places = ["--storage", stores.storage, "--tracking-uri", "none", "--searches", str(stores.searches)]
    monkeypatch.setattr("sys.argv", ["redline.report", *words, *places])
    main()


def test_an_unknown_search_is_one_line_that_names_the_known_ones(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        ask(stores, monkeypatch, "fulll")
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: search=fulll: unknown (did you mean full?); allowed: full, running, ")
    assert said.count("\n") == 1


def test_a_search_of_version_1_is_read_and_known_as_old(stores: Stores, tmp_path: Path) -> None:
    """Its studies hold results of the old form, and a rule that is no more."""
    old, database = tmp_path / "optuna.db", make_url(stores.storage).database
    shutil.copy(database, old)
    entry = {
        "max_stable_lr": 0.02,
        "first_diverged_lr": 0.05,
        "censored": None,
        "first_diverged_reason": "degraded",
        "val_loss": 4.0,
        "val_perplexity": 54.6,
        "best_lr": 0.02,
        "best_val_loss": 4.0,
        "trials": 2,
        "optimizer_steps": 200,
        "grid_steps": 600,
        "max_stable_lr_90": [0.015, 0.05],
        "stable_above": [],
    }
    rules = {"degraded": {"_target_": "redline.stability.Degraded", "tolerance": 0.25}}
    with sqlite3.connect(old) as store:
        mine = "study_id = (SELECT study_id FROM studies WHERE study_name = 'untracked/qk')"
        for key, value in (("result", entry), ("rules", rules)):
            change = f"UPDATE study_user_attributes SET value_json = ? WHERE key = ? AND {mine}"
            store.execute(change, (json.dumps(value), key))
        store.execute(f"DELETE FROM study_user_attributes WHERE key IN ('recipe', 'criterion') AND {mine}")
    search = read_search(Stores(f"sqlite:///{old}", None, tmp_path), "untracked")
    assert search.result.version == 1
    assert search.variants[0].edge == 0.02
    path = write_report(search, tmp_path / "report")
    assert "Old form (version 1)" in path.read_text()


def test_where_there_is_no_storage_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"storage=sqlite:///.*not there"):
        read_search(Stores(f"sqlite:///{tmp_path}/optuna.db", None, tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_crafted_name_in_a_store_leaves_no_folder_of_its_own(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    crafted = tmp_path / "optuna.db"
    shutil.copy(make_url(stores.storage).database, crafted)
    with sqlite3.connect(crafted) as store:
        store.execute("UPDATE study_user_attributes SET value_json = '\"../../evil\"' WHERE key = 'search'")
    with pytest.raises(SystemExit) as ended:
        ask(replace(stores, storage=f"sqlite:///{crafted}", searches=tmp_path / "a/b"), monkeypatch)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: search=../../evil: allowed: a name without /")
    assert not [path for path in tmp_path.rglob("*") if path.name in ("evil", "report")]


def test_the_command_says_where_the_report_is(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(stores, monkeypatch, "untracked")
    path = stores.searches / "untracked" / "report" / "report.html"
    assert capsys.readouterr().out == f"report: {path}\n"
    assert path.is_file()
