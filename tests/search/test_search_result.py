"""`result.json`: written, read back, of today's form and of the old one."""

import itertools
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.errors import UserError
from redline.search.result import QUANTILES, VERSION, Curve, Ratio, SearchResult, VariantResult
from result_helpers import LADDER, OLD, OLD_VARIANT, made_search, made_variant


def found(variants: int) -> SearchResult:
    """Results of very different lengths."""
    return made_search(**{f"variant {number}": made_variant() for number in range(variants)})


POSITIVE = st.floats(1e-12, 1e12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
CHANCE = st.floats(0, 1)
INTERVAL = st.tuples(POSITIVE, POSITIVE)
CENSORED = st.sampled_from(["above", "below"]) | st.none()
POSTERIOR = st.just(()) | st.lists(POSITIVE, min_size=len(QUANTILES), max_size=len(QUANTILES)).map(
    lambda values: tuple(sorted(values))
)
RATIO = st.builds(
    Ratio, st.text(), useful=st.none() | POSITIVE, useful_90=st.none() | INTERVAL, useful_chance=CHANCE
)


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    count = draw(st.integers(0, 3))
    kinds = (POSITIVE, NUMBER, NUMBER, NUMBER, CHANCE, CHANCE)
    return Curve(*(tuple(draw(st.lists(kind, min_size=count, max_size=count))) for kind in kinds))


VARIANT = st.builds(
    made_variant,
    useful=st.none() | POSITIVE,
    stable=st.none() | POSITIVE,
    censored=CENSORED,
    stable_censored=CENSORED,
    useful_quantiles=POSTERIOR,
    ratio=st.none() | RATIO,
    curve=st.none() | curves(),
    val_losses=st.dictionaries(st.text(), NUMBER, max_size=3),
    open=st.lists(POSITIVE, max_size=2).map(tuple),
    stopped=st.sampled_from(["resolution", "budget", "settled", "runs", None]),
    cut=st.integers(0, 9),
    interventions=st.dictionaries(st.text(), st.integers(0, 9), max_size=2),
    doubtful=st.none() | CHANCE,
)
SEARCH = st.builds(
    SearchResult,
    search=st.text(),
    ladder=st.lists(POSITIVE, min_size=1, max_size=4).map(tuple),
    seeds=st.integers(1, 9),
    variants=st.dictionaries(st.text(), VARIANT, min_size=1, max_size=3),
    recipe=st.dictionaries(st.text(), st.none() | st.booleans() | NUMBER | st.text(), max_size=3),
    criterion=st.sampled_from(["useful", "stable", "both"]),
    claim=st.none() | POSITIVE,
)


@given(written=SEARCH)
@settings(deadline=None, derandomize=True, max_examples=50)
def test_a_result_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, written: SearchResult
) -> None:
    path = tmp_path_factory.getbasetemp() / "result.json"
    written.write(path)
    assert SearchResult.read(path) == written
    content = json.loads(path.read_text())
    assert content["version"] == VERSION == SearchResult.read(path).version
    for name, its in written.variants.items():
        assert VariantResult.from_dict(content["variants"][name]) == its


def test_a_file_of_before_interventions_were_counted_is_read(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    made_search(qk=made_variant(interventions={"zclip": 3})).write(path)
    content = json.loads(path.read_text())
    assert content["variants"]["qk"].pop("interventions") == {"zclip": 3}
    path.write_text(json.dumps(content))
    assert SearchResult.read(path) == made_search(qk=made_variant())


def test_a_search_is_finished_where_no_run_was_left_open() -> None:
    assert made_search(qk=made_variant()).finished
    assert not made_search(qk=made_variant(), qkv=made_variant(open=(0.2,))).finished


def test_lists_of_numbers_take_one_line_each(tmp_path: Path) -> None:
    odd = "a [\n 1,\n 2]"
    written = made_search(**{odd: made_variant(useful_quantiles=(1.0,) * len(QUANTILES))})
    written.write(tmp_path / "result.json")
    text = (tmp_path / "result.json").read_text()
    assert '"ladder": [0.1, 0.2, 0.4, 0.8],' in text
    assert len(text.splitlines()) < 70
    assert list(json.loads(text)["variants"]) == [odd]


def changed(**keys: Any) -> dict[str, Any]:
    return {**OLD, "variants": {"qk": {**OLD_VARIANT, **keys}}}


def read(path: Path, content: dict[str, Any]) -> SearchResult:
    path.write_text(json.dumps(content))
    return SearchResult.read(path)


def test_a_result_of_version_1_is_read_and_known_as_old(tmp_path: Path) -> None:
    old = read(tmp_path / "result.json", OLD)
    its = old.variants["qk"]
    assert (old.version, its.version, old.seeds) == (1, 1, 2)
    assert (its.max_useful_lr, its.max_useful_rung, its.max_useful_lr_90) == (None, 0.2, (0.19, 0.42))
    assert (its.max_stable_lr, its.max_stable_rung, its.max_stable_lr_90) == (None, None, None)
    assert (its.first_diverged_lr, its.first_diverged_step) == (0.4, 99)
    assert (its.val_losses, its.short_runs, its.precision) == ({"0": 4.0, "1": 4.1}, 2, "fp32")
    assert VariantResult.from_dict(OLD_VARIANT) == its  # as a study keeps it


def test_a_result_of_before_there_were_versions_or_intervals_is_old_too(tmp_path: Path) -> None:
    content = changed()
    for key in ("version", "key", "label"):
        del content[key]
    for key in ("max_stable_lr_90", "precision", "max_steps", "parameters", "tokens_per_step", "val_losses"):
        del content["variants"]["qk"][key]
    old = read(tmp_path / "result.json", content)
    assert (old.key, old.label, old.ladder, old.version) == ("lr", "LR", LADDER, 1)
    assert old.variants["qk"].max_useful_lr_90 == (0.2, 0.4)  # its bracket


@pytest.mark.parametrize("censored", ["above", "below"])
def test_an_old_censored_edge_stays_one(tmp_path: Path, censored: str) -> None:
    nothing = dict.fromkeys(("max_stable_lr", "max_stable_lr_90", "val_loss", "val_perplexity"))
    its = read(tmp_path / "result.json", changed(**nothing, censored=censored)).variants["qk"]
    assert (its.censored, its.max_useful_rung, its.max_useful_lr_90) == (censored, None, None)


def test_an_old_result_is_not_written_as_a_new_one(tmp_path: Path) -> None:
    old = read(tmp_path / "old.json", OLD)
    with pytest.raises(AssertionError):
        old.write(tmp_path / "new.json")


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
