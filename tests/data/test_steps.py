"""What each step leaves of the documents, and how that is counted and split."""

import json
import logging
import random
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import prepared, words
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.data.manifest import TokenCorpus
from redline.data.steps import clean, exact, length, near
from redline.data.token_cache import is_validation
from redline.data.tokenizer import Bytes
from redline.errors import UserError

NEAR = {"threshold": 0.8, "permutations": 128, "shingle": 5, "seed": 1}


class Documents:
    """A corpus in memory."""

    def __init__(self, documents: list[str]) -> None:
        self.read = 0
        self.texts = documents

    def documents(self) -> Iterator[str]:
        self.read += 1
        return iter(self.texts)

    def identity(self) -> str:
        return str(hash(tuple(self.texts)))


def edited(document: str, share: float, seed: int = 0) -> str:
    """With this share of its words replaced."""
    draw, cut = random.Random(seed), document.split()
    for place in draw.sample(range(len(cut)), round(share * len(cut))):
        cut[place] = f"other{draw.random()}"
    return " ".join(cut)


def sides(corpus: TokenCorpus) -> tuple[list[str], list[str]]:
    """The documents of the training and of the validation part, of a corpus of bytes."""
    train, val = (
        [bytes(its[:-1].tolist()).decode() for its in np.split(part, np.flatnonzero(part == 256) + 1)[:-1]]
        for part in (np.asarray(corpus.train), np.asarray(corpus.val))
    )
    return train, val


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("donâ€™t", "don’t"),  # UTF-8 that was read as Windows-1252
        ("caf\u0065\u0301", "caf\u00e9"),  # an accent of its own
        ("a\0b\x07c\x0c\x81d\r\ne\ttwo", "abcd\ne\ttwo"),
        ("  one   two \u00a0 three  \n    four  ", "one two three\n    four"),
        ("one\n\n\n\n\ntwo\n\nthree\n \n \nfour", "one\n\ntwo\n\nthree\n\nfour"),
        (" \n\x00 ", None),
        ("“quoted”", "“quoted”"),
    ],
)
def test_clean(before: str, after: str | None) -> None:
    assert list(clean(iter([before]), empty_lines=1)) == ([] if after is None else [after])


@given(st.text())
@settings(max_examples=30)
def test_clean_leaves_what_is_clean(text: str) -> None:
    once = list(clean(iter([text]), empty_lines=1))
    for document in once:
        assert document.strip() == document != ""
        assert "\n\n\n" not in document
        assert "\0" not in document
        document.encode()


def test_length() -> None:
    texts = ["a" * size for size in (0, 9, 10, 20, 21)]

    assert list(map(len, length(iter(texts), 10, 20))) == [10, 20]
    assert list(map(len, length(iter(texts), 10, None))) == [10, 20, 21]


def test_exact_keeps_the_first_of_equal_documents_in_order() -> None:
    assert list(exact(iter(["b", "a", "b", "a ", "c", "a"]))) == ["b", "a", "a ", "c"]


def similarity(a: str, b: str) -> float:
    """Jaccard, of runs of five words, from the sets themselves."""
    x, y = ({tuple(cut[at : at + 5]) for at in range(len(cut) - 4)} for cut in (a.split(), b.split()))
    return len(x & y) / len(x | y)


def test_near_leaves_out_what_resembles_by_the_sets_themselves() -> None:
    originals = [words(seed, 300) for seed in range(20)]
    close = [edited(its, 0.01, seed) for seed, its in enumerate(originals)]
    far = [edited(its, 0.05, seed) for seed, its in enumerate(originals)]  # some are candidates
    assert min(map(similarity, originals, close)) > 0.88
    assert 0.6 < max(map(similarity, originals, far)) < 0.7

    assert list(near(iter([*originals, *close, *far]), **NEAR)) == [*originals, *far]
    assert list(near(iter([*close, *originals]), **NEAR)) == close  # the first stays


def test_near_is_decided_by_its_keys() -> None:
    pair = [words(1, 300), edited(words(1, 300), 0.04)]
    assert 0.6 < similarity(*pair) < 0.75

    left = {
        threshold: len(list(near(iter(pair), **NEAR | {"threshold": threshold}))) for threshold in (0.4, 0.95)
    }
    assert left == {0.4: 1, 0.95: 2}
    assert len(list(near(iter(pair), **NEAR | {"threshold": 0.9, "shingle": 1}))) == 1
    short = ["one two", "one two", "one three", "", ""]
    assert list(near(iter(short), **NEAR)) == ["one two", "one three", ""]


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, step in {"ftfy": partial(clean, empty_lines=1), "datasketch": partial(near, **NEAR)}.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=rf"^data\.steps: .*`{package}`.*'redline\[cleaning\]'"):
            next(step(iter(["a"])))


def test_each_step_is_counted_and_told_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = Documents(["aa  bb", "aa bb", "aa bb", "c" * 20, "dd", "", "ee ff"])
    steps = {"clean": partial(clean, empty_lines=1), "exact": exact}
    with caplog.at_level(logging.WARNING):
        tokens = prepared(corpus, tmp_path, {"steps": steps, "tokenizer": Bytes()}, val_fraction=0.4)

    assert corpus.read == 1  # whatever is done with the documents
    statistics = json.loads((tokens.path / "statistics.json").read_text())
    dropped = {"documents_dropped": 2 / 6, "characters_dropped": 10 / 42}
    assert statistics["source"] == {"documents": 7, "characters": 43}
    assert statistics["steps"] == {
        "clean": {
            "documents": 6,
            "characters": 42,
            "documents_dropped": pytest.approx(1 / 7),
            "characters_dropped": pytest.approx(1 / 43),
        },
        "exact": {"documents": 4, "characters": 32}
        | {key: pytest.approx(its) for key, its in dropped.items()},
    }
    assert (statistics["training"]["tokens"], statistics["validation"]["tokens"]) == (21, 16)
    (record,) = caplog.records
    assert record.getMessage() == (
        "tokens: 7 documents of 43 characters; clean dropped 14.3% and 2.3% of them;"
        " exact dropped 33.3% and 23.8% of them; 21 tokens for training, 16 for validation"
    )


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (lambda documents: (3 for _ in documents), "gives int; allowed: texts"),
        (lambda documents: (its + "\ud800" for its in documents), "surrogates not allowed"),
        (lambda documents: ("x" * 20_000 for _ in documents), "a word of more than 10000 characters"),
        (lambda documents: (its[5] for its in documents), "index out of range"),
        (lambda documents: None, "not iterable"),
        (lambda documents: iter(()), "leaves the training or the validation part of 0 documents"),
    ],
)
def test_a_step_that_fails_is_one_line(tmp_path: Path, step: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"^data.*{said}") as error:
        prepared(Documents(["a b", "c d"]), tmp_path / "cache", {"steps": {"mine": step}})
    assert "\n" not in str(error.value)
    assert str(error.value).count("data.steps") <= 1
    assert [*(tmp_path / "cache").glob("*")] == []


def test_no_document_is_on_both_sides(tmp_path: Path) -> None:
    texts = [words(seed, 30) for seed in range(300)]
    copies = [
        "".join([*its]) for its in random.Random(0).sample(texts, 150)
    ]  # by content, not the same object
    corpus = Documents([*texts, *copies])

    train, val = sides(prepared(corpus, tmp_path, {"tokenizer": Bytes()}, split="document", val_fraction=0.2))

    assert sorted([*train, *val]) == sorted(corpus.texts)
    assert not {*train} & {*val}
    assert len({*val}) / 300 == pytest.approx(0.2, abs=0.07)  # three standard deviations


def test_a_document_keeps_its_side_whatever_else_there_is(tmp_path: Path) -> None:
    texts = [words(seed, 30) for seed in range(60)]
    chosen: dict[str, Any] = {"split": "document", "val_fraction": 0.3}
    few, many = (
        sides(prepared(Documents(its), tmp_path, {"tokenizer": Bytes()}, **chosen))
        for its in (texts[:30], texts[::-1])
    )

    assert {*few[0]} < {*many[0]}
    assert {*few[1]} < {*many[1]}
    assert many[1] == [its for its in texts[::-1] if is_validation(its, 0.3)]


def test_near_duplicates_that_are_removed_cannot_be_on_both_sides(tmp_path: Path) -> None:
    originals = [words(seed, 100) for seed in range(40)]
    copies = [edited(its, 0.01, seed) for seed, its in enumerate(originals)]
    corpus = Documents([*originals, *copies])
    chosen: dict[str, Any] = {"split": "document", "val_fraction": 0.3}
    steps = {"near": partial(near, **NEAR)}

    with_copies = sides(prepared(corpus, tmp_path, {"tokenizer": Bytes()}, **chosen))
    without = sides(prepared(corpus, tmp_path, {"tokenizer": Bytes(), "steps": steps}, **chosen))

    straddling = [
        [similarity(a, b) > 0.8 for a in train for b in val] for train, val in (with_copies, without)
    ]
    assert sum(straddling[0]) > 5
    assert sum(straddling[1]) == 0


def test_other_steps_and_another_split_are_other_caches(tmp_path: Path) -> None:
    corpus = Documents([words(seed, 30) for seed in range(30)])
    text = {"tokenizer": Bytes()}
    changes: list[dict[str, Any]] = [
        {},
        {"split": "document"},
        {"text": text | {"steps": {"exact": exact}}},
        {"text": text | {"steps": {"exact": exact, "again": exact}}},
    ]
    caches = [prepared(corpus, tmp_path, **({"text": text} | its)) for its in changes]
    assert len({its.path for its in caches}) == 4
