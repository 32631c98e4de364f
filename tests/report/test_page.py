"""The page on searches of every kind: its numbers, and that it needs nothing but itself."""

import base64
import json
import math
import re
from pathlib import Path

import pytest
from made_up_store import KINDS, ODD_NAME, Stores, read_search
from mlflow import MlflowClient
from page_reader import read_page

from redline.report import write_report
from redline.report.blocks import RYBAKOV, WORTSMAN
from redline.report.topics.perplexity import PAPER_PERPLEXITY
from redline.search.result import span

Written = dict[str, Path]


def result_of(stores: Stores, name: str) -> dict[str, dict]:
    return json.loads((stores.searches / name / "result.json").read_text())["variants"]


def test_the_table_is_that_of_the_result(written: Written, stores: Stores) -> None:
    entries = result_of(stores, "full")
    rows = {row["variant"]: row for row in read_page(written["full"]).rows("result")}
    assert list(rows) == list(entries) == ["baseline", ODD_NAME]
    for name, entry in entries.items():
        row = rows[name]
        assert row["max useful LR"] == f"{entry['max_useful_lr']:.3g}"
        assert row["rung"] == f"{entry['max_useful_rung']:g}"
        assert row["useful 90%"] == span(entry["max_useful_lr_90"])
        assert row["perplexity"] == f"{entry['val_perplexity']:.2f}"
        assert row["rule that broke first"] == (entry["first_diverged_reason"] or "–")
        assert row["trials (cut)"] == f"{entry['trials']}" + (f" ({entry['cut']})" if entry["cut"] else "")
        assert row["stopped by"] == "resolution"
    assert rows["baseline"]["stable 90%"] == "0.05–0.075"
    assert rows[ODD_NAME]["max stable LR"] == "≥ 1"
    assert rows["baseline"]["ratio to baseline"] == "1"
    assert rows[ODD_NAME]["ratio to baseline"] == "1.50 (1.2–2)"
    assert (rows[ODD_NAME]["P(>1)"], rows[ODD_NAME]["P(>1.5)"]) == ("97%", "50%")
    [ratios] = read_page(written["full"]).rows("ratios")
    assert list(ratios.values()) == [
        *(ODD_NAME, "1.50", "1.2–2", "97%", "50%"),
        *("2.00", "1–4", "95%", "70%"),
    ]
    assert "Recipe: weight_decay 0.1, clip 1." in read_page(written["full"]).text
    cost = {row["variant"]: row for row in read_page(written["full"]).rows("cost")}
    for name, entry in entries.items():
        assert int(cost[name]["optimizer steps"]) == entry["optimizer_steps"]
        assert int(cost[name]["grid"]) == entry["grid_steps"]
        assert float(cost[name]["seconds of training"]) == pytest.approx(2.5 * entry["trials"], abs=0.5)
        ms_a_step = 2500 * entry["trials"] / entry["optimizer_steps"]
        assert float(cost[name]["ms a step"]) == pytest.approx(ms_a_step, abs=0.5)
    assert int(cost["all"]["optimizer steps"]) == sum(entry["optimizer_steps"] for entry in entries.values())


def test_the_runs_are_those_of_mlflow(written: Written, stores: Stores) -> None:
    client = MlflowClient(stores.tracking_uri)
    rows = [row for row in read_page(written["full"]).rows("runs") if row["verdict"] != "crashed"]
    experiment = client.get_experiment_by_name("full")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    tracked = {run.info.run_id: run for run in runs if "summary" not in run.data.tags}
    shown = {row["MLflow run"]: row for row in rows}
    crashed = {run_id for run_id in tracked if run_id not in shown}
    assert len(rows) == len(shown) == len(tracked) - 1
    assert [tracked[run_id].data.tags["lr"] for run_id in crashed] == ["0.5"]
    for run_id, row in shown.items():
        data = tracked[run_id].data
        assert (row["variant"], row["LR"], row["seed"]) == tuple(
            data.tags[key] for key in ("variant", "lr", "seed")
        )
        if row["verdict"] != "cut":  # which MLflow learns at the search's end
            assert row["verdict"] == data.tags["verdict"]
        for heading, metric, form in (
            ("validation loss", "val/loss", ".4f"),
            ("perplexity", "val/perplexity", ".2f"),
        ):
            assert row[heading] == (f"{data.metrics[metric]:{form}}" if metric in data.metrics else "–")


def test_perplexities_are_exp_of_the_mean_loss_beside_the_papers(written: Written) -> None:
    rows = {row["variant"]: row for row in read_page(written["full"]).rows("perplexity")}
    ours, odd = rows["baseline"], rows[ODD_NAME]
    assert ours["at its largest useful rung"] == f"{math.exp((4.25 + 4.375) / 2):.2f}"
    assert ours["at LR 0.02"] == f"{math.exp(4.5):.2f}"
    assert odd["against baseline"] == f"{math.exp(4.125 - 4.5) - 1:+.1%}"
    assert ours["paper: at LR 0.0003"] == f"{PAPER_PERPLEXITY['baseline']:.2f}"
    # With a further key it is another variant than the paper's qk.
    assert odd["paper: at LR 0.0003"] == odd["paper: first diverged"] == "–"
    assert "another model" in read_page(written["full"]).text


@pytest.mark.parametrize("name", KINDS)
def test_every_page_is_whole_and_needs_nothing_beside_it(written: Written, name: str) -> None:
    path, page = written[name], read_page(written[name])
    cited = {RYBAKOV.url, WORTSMAN.url}
    for tag, address in page.addresses:
        assert address.startswith(("#", "data:")) or (tag == "a" and address in cited), address[:80]
    html = path.read_text()
    assert not set(page.tags) & {"script", "iframe", "object", "embed"}
    assert "@import" not in html
    assert "url(" not in html
    of_layers = () if name == "other" else ("growth", "norm_curves", "norm_heatmap", "max_attention_logit")
    for section in ("result", "loss_against_lr", "lr_sensitivity", *of_layers, "cost", "runs"):
        assert f'<section id="{section}">' in html
    for words in ("Traceback", "None", "nan ", "Undefined"):
        assert words not in page.text.replace("None of the runs", "").replace("was NaN", "")


@pytest.mark.parametrize("name", KINDS)
def test_the_pictures_beside_the_page_are_those_in_it(written: Written, name: str) -> None:
    path, page = written[name], read_page(written[name])
    embedded = {base64.b64decode(its.partition(",")[2]) for tag, its in page.addresses if tag == "img"}
    assert {file.read_bytes() for file in path.parent.glob("*.png")} == embedded
    assert all(png.startswith(b"\x89PNG") for png in embedded)
    assert embedded


def test_an_odd_name_is_text(written: Written) -> None:
    path, page = written["full"], read_page(written["full"])
    assert "b" not in page.tags
    assert ODD_NAME in page.text
    assert "<b>" not in path.read_text()
    names = [file.name for file in path.parent.glob("norm_curves_*")]
    assert len(names) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9.=_-]+", name) for name in names)


def test_a_search_under_way_says_so_and_how_far_it_is(written: Written) -> None:
    page = read_page(written["running"])
    assert "This search has not ended." in page.text
    assert "table-result" not in page.tables
    qk, qkv = page.rows("so_far")
    assert (qk["largest stable so far"], qk["smallest diverged so far"]) == ("0.02", "0.2")
    assert (qk["finished"], qk["running"], qk["crashed"]) == ("2", "1", "0")
    assert qkv["finished"] == "0"
    running = next(row for row in page.rows("runs") if row["verdict"] == "running")
    assert (running["LR"], running["step"], running["validation loss"]) == ("0.05", "40", "–")


def test_without_tracking_the_page_says_that_there_are_no_curves(written: Written) -> None:
    page = read_page(written["untracked"])
    assert "There are no curves: nothing was tracked" in page.text
    assert "None of the runs logged attention/max_logit: nothing was tracked" in page.text
    assert page.rows("result")[0]["max useful LR"] == "0.024"


def test_a_search_of_another_trainable_speaks_of_what_was_searched(written: Written) -> None:
    """Of no learning rate, no nats, no perplexity, no layer and no paper whose variants it has not."""
    path, page = written["other"], read_page(written["other"])
    row = page.rows("result")[0]
    assert (row["max useful weight decay"], row["rung"], row["final score"]) == ("0.06", "0.05", "0.25")
    assert row["rule that broke first"] == "blow_up"
    assert "Final score against weight decay" in page.text
    assert "Largest useful and largest stable weight decay" in page.text
    assert "Weight decay sensitivity" in page.text
    runs = page.rows("runs")
    assert {"weight decay", "final score"} < set(runs[0])
    assert not {"LR", "perplexity", "MLflow run"} & set(runs[0])
    assert page.rows("cost")[0]["grid"] == str(6 * 100)
    for section in ("growth", "norm_curves", "norm_heatmap", "max_attention_logit", "perplexity"):
        assert f'<section id="{section}">' not in path.read_text()
    assert RYBAKOV.url not in path.read_text()
    for words in (
        "learning rate",
        "LR",
        "erplexity",
        "in nats",
        "attention",
        "word frequency",
        "steps a run",
    ):
        assert words not in page.text, words


def test_the_paper_is_cited_only_where_a_variant_is_its_own(written: Written) -> None:
    """The made-up searches of `qk` have it; `full` beside a variant of ours that has not."""
    for name in ("one-variant", "running", "full"):
        assert "paper: first diverged" in read_page(written[name]).rows("perplexity")[0]


def test_where_every_trial_diverged_there_is_nothing_to_compare_with(written: Written) -> None:
    page = read_page(written["all-diverged"])
    assert page.rows("result")[0]["max useful LR"] == "< 0.02"
    assert "qk: there is no useful run to compare with." in page.text
    assert "None of the runs logged attention/max_logit: the tap was off." in page.text


def test_a_second_report_leaves_no_picture_of_the_first(stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "norm_curves_07_gone.png").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    write_report(read_search(stores, "all-diverged"), tmp_path)
    assert not (tmp_path / "norm_curves_07_gone.png").exists()
    assert (tmp_path / "notes.txt").exists()
