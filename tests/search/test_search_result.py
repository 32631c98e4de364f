"""`result.json` and the table: edges, censoring, ladders that are not monotone, runs left open."""

import io
import itertools
import json
import math
import os
import threading
import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console
from search_helpers import DEGRADED, outcome

from redline.errors import UserError
from redline.search.console.table import result_table
from redline.search.policy.answer import variant_result
from redline.search.policy.state import Question, search_state
from redline.search.policy.verdicts import Point
from redline.search.result import SearchResult, VariantResult
from redline.search.trainable import Facts
from redline.stability import Outcome

LADDER = (0.1, 0.2, 0.4, 0.8)
FIXED_KEYS = {
    "max_stable_lr",
    "first_diverged_lr",
    "censored",
    "first_diverged_reason",
    "val_loss",
    "val_losses",
    "val_perplexity",
    "best_lr",
    "best_val_loss",
    "trials",
    "optimizer_steps",
    "grid_steps",
}


def runs(ends: str, first_loss: float = 4.0) -> dict[Point, Outcome]:
    """One seed's runs, a letter a rung: (s)table, (d)iverged, (-) not run. Losses fall by 0.1 a rung."""
    return {
        Point(rung, 0): outcome(LADDER[rung], reason="blow_up", val_loss=None, steps=5)
        if end == "d"
        else outcome(LADDER[rung], val_loss=first_loss - 0.1 * rung)
        for rung, end in enumerate(ends)
        if end != "-"
    }


def result(outcomes: dict[Point, Outcome], seeds: int = 1, given_up: Collection[Point] = ()) -> VariantResult:
    question = Question(LADDER, seeds, "majority", doubt=1.0)
    return variant_result(search_state(question, DEGRADED, outcomes, given_up=given_up), Facts(max_steps=10))


def shown(**variants: VariantResult) -> str:
    """The table as text."""
    console = Console(file=io.StringIO(), width=160)
    console.print(result_table(SearchResult("s", LADDER, 1, variants), reference="qk"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.split()[:1] == [name])


def test_an_edge_gives_every_fixed_key() -> None:
    its = result(runs("s-sd"))
    assert set(asdict(its)) >= FIXED_KEYS
    assert (its.max_stable_lr, its.first_diverged_lr, its.censored) == (0.4, 0.8, None)
    assert (its.first_diverged_reason, its.first_diverged_step) == ("blow_up", 4)
    assert its.val_loss == pytest.approx(3.8)
    assert its.val_perplexity == pytest.approx(math.exp(3.8))
    assert (its.best_lr, its.best_val_loss) == (0.4, pytest.approx(3.8))
    assert (its.trials, its.optimizer_steps, its.grid_steps) == (3, 25, 40)


def test_perplexity_is_of_the_mean_loss_over_seeds() -> None:
    both = {Point(0, seed): outcome(seed=seed, val_loss=3.0 + seed) for seed in (0, 1)}
    both |= {Point(1, seed): outcome(seed=seed, reason="blow_up", val_loss=None) for seed in (0, 1)}
    its = result(both, seeds=2)
    assert its.val_loss == pytest.approx(3.5)
    assert its.val_losses == {"0": 3.0, "1": 4.0}
    assert its.val_perplexity == pytest.approx(math.exp(3.5))
    assert its.grid_steps == 80


def test_a_late_rule_five_verdict_is_the_edge_and_names_its_reason() -> None:
    outcomes = {
        Point(rung, 0): outcome(LADDER[rung], val_loss=loss) for rung, loss in enumerate([4.0, 4.0, 4.3, 4.4])
    }
    its = result(outcomes)
    assert (its.max_stable_lr, its.first_diverged_lr) == (0.2, 0.4)
    assert (its.first_diverged_reason, its.first_diverged_step) == ("degraded", 9)


def test_the_step_of_a_divergence_is_the_earliest_of_the_seeds_that_broke_the_rule() -> None:
    steps = {"blow_up": [8, 6], "non_finite": [2]}
    runs = [(reason, count) for reason, counts in steps.items() for count in counts]
    both = {Point(0, seed): outcome(seed=seed) for seed in range(3)}
    both |= {
        Point(1, seed): outcome(seed=seed, reason=reason, val_loss=None, steps=count)
        for seed, (reason, count) in enumerate(runs)
    }
    its = result(both, seeds=3)
    assert (its.first_diverged_reason, its.first_diverged_step) == ("blow_up", 5)
    assert "blow_up at 5" in row(shown(qk=its), "qk")


def test_the_best_loss_may_lie_at_another_rate_and_is_finite() -> None:
    outcomes = {Point(0, 0): outcome(val_loss=4.0), Point(1, 0): outcome(val_loss=4.2)}
    outcomes[Point(2, 0)] = outcome(val_loss=math.nan, reason="no_learning")
    outcomes[Point(3, 0)] = outcome(val_loss=math.inf, reason="no_learning")
    its = result(outcomes)
    assert (its.max_stable_lr, its.best_lr, its.best_val_loss) == (0.2, 0.1, 4.0)


@pytest.mark.parametrize(
    ("ends", "censored", "said"),
    [
        ("ssss", "above", ["≥ 0.8, censored", "no LR of the ladder diverged; the edge lies higher"]),
        ("s--s", "above", ["≥ 0.8, censored"]),
        ("d---", "below", ["< 0.1, censored", "the smallest LR of the ladder diverged; the edge lies lower"]),
    ],
)
def test_a_censored_edge_is_no_number_and_the_table_says_so(
    ends: str, censored: str, said: list[str]
) -> None:
    its = result(runs(ends))
    assert its.max_stable_lr is None
    assert its.censored == censored
    assert (its.first_diverged_lr is None) == (censored == "above")
    assert (its.val_loss, its.val_perplexity) == (None, None)
    text = shown(qk=its)
    for words in said:
        assert words in text


def test_a_smallest_rate_that_learned_nothing_is_not_said_to_lie_above_the_edge() -> None:
    its = result({Point(0, 0): outcome(0.1, reason="no_learning", val_loss=6.0)})
    assert its.censored == "below"
    text = shown(qk=its)
    assert "may be too small" in text
    assert "edge lies lower" not in text


@pytest.mark.parametrize(
    ("ends", "edge", "above"),
    [
        ("sdsd", 0.1, (0.4,)),
        ("sdss", 0.1, (0.4, 0.8)),
        ("ssds", 0.2, (0.8,)),
        ("dsss", None, (0.2, 0.4, 0.8)),
    ],
)
def test_stable_above_a_divergence_changes_no_edge_and_is_marked(
    ends: str, edge: float | None, above: tuple[float, ...]
) -> None:
    its = result(runs(ends))
    assert its.max_stable_lr == edge
    assert its.stable_above == above
    text = shown(qk=its)
    assert "not monotone, stable again at " + ", ".join(f"{lr:g}" for lr in above) in text
    if edge is not None:
        assert f"{edge:g}*" in row(text, "qk")


def test_a_monotone_row_is_not_marked() -> None:
    text = shown(qk=result(runs("ssdd")))
    assert "*" not in text
    assert "monotone" not in text


def test_the_table_compares_edges_with_the_reference() -> None:
    text = shown(baseline=result(runs("sddd")), qk=result(runs("ssdd")), qkv=result(runs("ssss")))
    low, high = (f"{end:.2g}" for end in result(runs("sddd")).max_stable_lr_90)
    assert row(text, "baseline").split()[:5] == ["baseline", "0.1", f"{low}–{high}", "0.2", "0.50"]
    assert "1.00" in row(text, "qk")
    assert "blow_up" in row(text, "qk")
    assert "–" in row(text, "qkv")  # a censored edge has no ratio


def test_the_table_does_without_its_reference() -> None:
    assert "–" in row(shown(baseline=result(runs("sddd"))), "baseline")


def test_an_undecided_rung_leaves_the_edge_open_and_named() -> None:
    its = result(runs("s-dd"), given_up={Point(1, 0)})
    assert (its.max_stable_lr, its.first_diverged_lr, its.open) == (None, 0.4, (0.2,))
    text = shown(qk=its)
    assert "open" in row(text, "qk")
    assert "runs at 0.2 crashed too often and were left open" in text


def test_a_rung_left_open_outside_the_bracket_changes_nothing() -> None:
    its = result(runs("ssd-"), given_up={Point(3, 0)})
    assert (its.max_stable_lr, its.open) == (0.2, ())


@pytest.mark.parametrize(("ends", "left"), [("sss-", {3}), ("s---", {1, 2, 3}), ("----", {0, 1, 2, 3})])
def test_a_rung_that_only_crashed_is_never_claimed_as_stable(ends: str, left: set[int]) -> None:
    """A top rung that crashed is no evidence that the edge lies above it."""
    its = result(runs(ends), given_up={Point(rung, 0) for rung in left})
    assert its.max_stable_lr is None
    assert its.open == tuple(LADDER[rung] for rung in sorted(left))
    text = shown(qk=its)
    assert "left open" in text
    assert its.censored != "above"
    assert "≥ 0.8" not in text


def test_a_divergence_above_a_lowest_rung_that_only_crashed_is_not_censored() -> None:
    its = result(runs("-ddd"), given_up={Point(0, 0)})
    assert (its.max_stable_lr, its.first_diverged_lr, its.open) == (None, 0.2, (0.1,))
    shown(qk=its)


def found(variants: int) -> SearchResult:
    """Results of very different lengths."""
    named = {f"variant {number}": result(runs("s-sd")) for number in range(variants)}
    return SearchResult("s", LADDER, 1, named)


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    variants = {ends: result(runs(ends)) for ends in ("s-sd", "ssss", "d---", "sdss")}
    variants["open"] = result(runs("s-dd"), given_up={Point(1, 0)})
    written = SearchResult("s", LADDER, 1, variants, key="optimizer.weight_decay", label="decay")
    written.write(path)
    assert SearchResult.read(path) == written
    assert not written.finished
    assert found(1).finished


def test_a_result_of_before_files_had_a_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    found(1).write(path)
    content = json.loads(path.read_text())
    for key in ("version", "key", "label"):
        del content[key]
    for entry in content["variants"].values():
        for key in ("max_stable_lr_90", "precision", "max_steps", "parameters", "tokens_per_step"):
            del entry[key]
        entry["something_else"] = 1
    path.write_text(json.dumps(content))
    read = SearchResult.read(path)
    assert (read.key, read.label, read.ladder) == ("lr", "LR", LADDER)
    assert read.variants["variant 0"].max_stable_lr == 0.4


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"search": "s", "ladder": 1}'])
def test_what_is_no_result_is_the_users_mistake(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=rf"^baseline={path}: .*; allowed: the path of a search's result"):
        SearchResult.read(path, "baseline")


def test_a_reader_never_sees_half_a_result(tmp_path: Path) -> None:
    """A reader loops while results of very different lengths replace each other."""
    path, stop, seen = tmp_path / "result.json", threading.Event(), set()
    results = [found(variants) for variants in (1, 60, 2)]
    results[0].write(path)

    def read() -> None:
        while not stop.is_set():
            seen.add(len(SearchResult.read(path).variants))

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 300
    for turn in itertools.count():
        results[turn % 3].write(path)
        if turn > 60 and (len(seen) == 3 or time.monotonic() > deadline):
            break
    stop.set()
    reader.join()
    assert seen == {1, 2, 60}
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_write_that_is_cut_short_keeps_the_old_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    found(1).write(path)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed here")))
    with pytest.raises(OSError, match="killed here"):
        found(2).write(path)
    assert SearchResult.read(path) == found(1)
