"""The table at a search's end, and the notes below it."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from redline.search.console.table import percent, recipe_text, result_headings, result_rows, result_table
from redline.search.result import Ratio, SearchResult, VariantResult, span
from result_helpers import OLD, made_search, made_variant


def printed(result: SearchResult, reference: str = "qk") -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(result_table(result, reference))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def shown(**variants: VariantResult) -> str:
    return printed(made_search(**variants))


def row(text: str, name: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [name])


def test_a_row_has_both_edges_with_intervals_and_rungs() -> None:
    text = shown(qk=made_variant(0.54, 1.5, trials=12, cut=3))
    edges = ["0.54", "0.43–0.68", "0.4", "1.5", "1.2–1.9"]
    assert row(text, "qk") == ["qk", *edges, "1", "–", "44.70", "blow_up", "12", "(3)", "25%", "resolution"]
    assert "*" not in text


def test_what_may_hide_divergence_stands_beside_the_edges() -> None:
    counts = {"zclip": 12, "fp16_scaler": 0}
    result = made_search(qk=made_variant(interventions=counts), qkv=made_variant())
    assert result_headings(result, "qk")[5:7] == ["stable 90%", "steps changed"]
    assert [row[6] for row in result_rows(result, "qk")] == ["zclip 12, fp16_scaler 0", "–"]
    text = printed(result)
    assert row(text, "qk")[6:8] == ["zclip", "12,"]
    assert "Steps changed: skipped or clipped by what can hide divergence" in text
    assert "teps changed" not in shown(qk=made_variant())


def test_a_ratio_has_its_interval_and_its_chances() -> None:
    far = Ratio("qk", 1.7, (1.2, 2.4), useful_chance=0.9991, useful_claim_chance=0.73)
    result = made_search(qk=made_variant(), qk_cap=made_variant(0.9, ratio=far))
    assert row(printed(result), "qk_cap")[6:9] == ["1.70", "(1.2–2.4)", ">99%"]
    claimed = replace(result, claim=1.5)
    assert result_headings(claimed, "qk")[6:9] == ["ratio to qk", "P(>1)", "P(>1.5)"]
    assert "73%" in row(printed(claimed), "qk_cap")


def test_a_ratio_to_another_variant_than_the_searchs_is_without_an_interval() -> None:
    result = made_search(qk=made_variant(0.5), qkv=made_variant(1.0, ratio=Ratio("qk", 2.0, (1.0, 4.0))))
    assert row(printed(result, "qkv"), "qk")[6:8] == ["0.50", "–"]
    assert "ratio" not in printed(result, "soft_cap")
    assert "–" in row(printed(made_search(qk=made_variant(None), qkv=made_variant())), "qkv")


@pytest.mark.parametrize(("censored", "edge"), [("above", "≥ 0.8"), ("below", "< 0.1")])
def test_a_censored_edge_is_said_to_be_one(censored: str, edge: str) -> None:
    text = shown(qk=made_variant(None, None, censored=censored, stable_censored=censored))
    assert " ".join(row(text, "qk")).count(edge) == 2
    for which in ("useful", "stable"):
        assert f"qk: censored, the {which} edge lies {censored} every LR that was tried" in text


def test_a_smallest_rate_that_learned_nothing_is_not_said_to_lie_above_the_edge() -> None:
    text = shown(qk=made_variant(None, censored="below", first_diverged_reason="no_learning"))
    assert "may be too small" in text
    assert "edge lies below" not in text


def test_runs_that_were_left_open_are_named() -> None:
    text = shown(qk=made_variant(None, open=(0.2,)))
    assert row(text, "qk")[1] == "open"
    assert "runs at 0.2 crashed too often and were left open" in text


def test_notes_tell_what_an_edge_depends_on_and_how_sure_it_is() -> None:
    recipe = {"weight_decay": 0.1, "clip": None, "optimizer": "AdamW"}
    its = made_variant(next_gain=1.07, doubtful=0.125, decay_per_step=0.05)
    text = printed(replace(made_search(seeds=1, qk=its), recipe=recipe, lost_share=0.3))
    for words in (
        "less than 30% is lost",
        "Recipe: weight_decay 0.1, optimizer AdamW.",
        "qk 5% (20 steps)",
        "One seed: the intervals rest on a prior of how much seeds differ.",
        "One more run would narrow the interval by about: qk 7%.",
        "on either side of the useful edge: qk 12%",
    ):
        assert words in text
    silent = shown(qk=made_variant())
    for word in ("Recipe", "decay", "One seed", "One more run", "doubt", "censored"):
        assert word not in silent


def test_an_old_result_is_shown_and_named_as_old(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(OLD))
    text = printed(SearchResult.read(tmp_path / "result.json"))
    assert row(text, "qk")[:6] == ["qk", "–", "0.19–0.42", "0.2", "–", "–"]
    assert "Old form (version 1)" in text
    assert "Useful:" not in text


def test_long_names_and_a_claim_fit_160_columns() -> None:
    ratio = Ratio("qk", 0.15, (0.12, 0.21), useful_chance=0.0001, useful_claim_chance=0.0001)
    names = ("baseline", "qk", "sigma_reparam")
    variants = {name: made_variant(0.081, 1.35, cut=3, trials=12, ratio=ratio) for name in names}
    text = printed(replace(made_search(**variants), claim=1.5))
    for name in names:
        assert name in text
    assert "…" not in text


def test_a_span_tells_its_ends_apart() -> None:
    assert [span(its) for its in ((0.431, 0.68), (0.501, 0.503))] == ["0.43–0.68", "0.501–0.503"]


def test_no_chance_reads_as_certain() -> None:
    chances = (0.0, 0.004, 0.5, 0.99, 0.9999, 1.0, None)
    assert [percent(its) for its in chances] == ["<1%", "<1%", "50%", "99%", ">99%", ">99%", "–"]


def test_a_recipe_is_one_line() -> None:
    assert recipe_text({"lr": 1e-4, "betas": [0.9, 0.95], "coupled": True}) == (
        "lr 0.0001, betas [0.9, 0.95], coupled True"
    )
