"""Tokens that are there already: mapped where they are, counted once, and never copied."""

import itertools
import json
import math
import os
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.data import shards
from redline.data.batches import train_batch, val_batches
from redline.data.manifest import TokenCorpus
from redline.data.shards import Shards, TokenFiles
from redline.errors import UserError

TOKENS = np.random.default_rng(0).integers(50, size=1000).astype(np.uint16)
CUTS = [0, 130, 131, 700, 1000]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same tokens in four files of both kinds."""
    folder = tmp_path / "tokens"
    folder.mkdir()
    for number, (start, stop) in enumerate(itertools.pairwise(CUTS)):
        if number % 2:
            np.save(folder / f"{number}.npy", TOKENS[start:stop].astype(np.uint32))
        else:
            TOKENS[start:stop].tofile(folder / f"{number}.bin")
    return folder


def opened(path: Any, tmp_path: Path, val_path: Any = None, vocab_size: int = 50) -> TokenCorpus:
    return TokenFiles(path, val_path, "uint16").open(vocab_size, 0.1, tmp_path / "cache")


def test_shards_are_one_array(folder: Path, tmp_path: Path) -> None:
    corpus = opened(str(folder), tmp_path)

    np.testing.assert_array_equal(corpus.train[:], TOKENS[:900])
    np.testing.assert_array_equal(corpus.val[:], TOKENS[900:])
    assert corpus.vocab_size == TOKENS.max() + 1
    assert json.loads((corpus.path / "statistics.json").read_text()) == {
        "training": {"tokens": 900},
        "validation": {"tokens": 100},
    }


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    start=st.integers(0, 60),
    stop=st.integers(0, 60),
    at=st.integers(0, 60),
)
def test_any_slice_and_any_cut_are_those_of_one_array(
    sizes: list[int], start: int, stop: int, at: int
) -> None:
    whole = np.arange(sum(sizes), dtype=np.uint16)
    several = Shards(np.split(whole, np.cumsum(sizes)[:-1]))

    assert len(several) == len(whole)
    np.testing.assert_array_equal(several[start:stop], whole[start:stop])
    before, after = several.cut(at)
    np.testing.assert_array_equal(before[:], whole[:at])
    np.testing.assert_array_equal(after[:], whole[at:])


def test_batches_do_not_know_how_the_tokens_are_cut(folder: Path, tmp_path: Path) -> None:
    corpus = opened(folder, tmp_path)

    for step in range(20):
        np.testing.assert_array_equal(
            train_batch(corpus.train, 60, 4, seed=3, step=step),
            train_batch(TOKENS[:900], 60, 4, seed=3, step=step),
        )
    for batch, expected in zip(
        val_batches(corpus.val, 9, 2, 3), val_batches(TOKENS[900:], 9, 2, 3), strict=True
    ):
        np.testing.assert_array_equal(batch, expected)


def test_the_floor_is_that_of_the_training_part(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_CHUNK", 17)
    counts = Counter(TOKENS[:900].tolist())
    expected = -math.fsum(n / 900 * math.log(n / 900) for n in counts.values())

    assert opened(folder, tmp_path).unigram_entropy == pytest.approx(expected, rel=1e-12)


def test_files_for_validation(folder: Path, tmp_path: Path) -> None:
    files = [folder / "2.bin", folder / "0.bin"]
    corpus = opened(list(map(str, files)), tmp_path, val_path=folder / "1.npy")

    np.testing.assert_array_equal(corpus.train[:], np.concatenate([TOKENS[131:700], TOKENS[:130]]))
    np.testing.assert_array_equal(corpus.val[:], TOKENS[130:131])
    with pytest.raises(UserError, match=r"^data\.val_path=.*1\.npy: is in data\.path too"):
        opened(folder, tmp_path, val_path=[str(folder / ".." / "tokens" / "1.npy")])


def test_the_tokens_are_counted_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened(folder, tmp_path)
    assert [its.getMessage() for its in caplog.records] == ["tokens: 900 in 4 files; counting them once"]
    monkeypatch.setattr(shards, "_count", None)

    again = opened(folder, tmp_path)

    assert (again.unigram_entropy, again.identity) == (first.unigram_entropy, first.identity)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.*")) < 1000


def test_a_change_is_seen_by_size_sample_or_time(folder: Path, tmp_path: Path) -> None:
    before = opened(folder, tmp_path)
    moved = folder.rename(tmp_path / "moved")
    assert opened(moved, tmp_path).path == before.path

    os.utime(moved / "0.bin", ns=(1, 1))
    touched = opened(moved, tmp_path)
    assert (touched.path != before.path, touched.identity == before.identity) == (True, True)

    content = bytearray((moved / "0.bin").read_bytes())
    content[0] ^= 1
    (moved / "0.bin").write_bytes(content)
    os.utime(moved / "0.bin", ns=(1, 1))
    edited = opened(moved, tmp_path)
    assert edited.identity != before.identity
    assert edited.train[0:1][0] == TOKENS[0] ^ 1

    (moved / "0.bin").write_bytes(content[:-2])
    assert opened(moved, tmp_path).identity != edited.identity


def test_a_damaged_count_is_made_again(folder: Path, tmp_path: Path) -> None:
    before = opened(folder, tmp_path)
    path = before.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unigram_entropy": 1.0}))

    assert opened(folder, tmp_path).unigram_entropy == before.unigram_entropy


@pytest.mark.parametrize("counted_before", [False, True])
def test_a_token_too_large_for_the_model_is_told_before_training(
    folder: Path, tmp_path: Path, counted_before: bool
) -> None:
    if counted_before:
        opened(folder, tmp_path)
    largest = TOKENS.max()
    with pytest.raises(UserError) as error:
        opened(folder, tmp_path, vocab_size=int(largest))
    assert str(error.value) == (
        f"model.vocab_size={largest}: data.path or data.val_path holds the token {largest};"
        f" allowed: {largest + 1} or more"
    )


def test_a_huge_token_takes_no_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([1, 2**32 - 1] * 50, dtype=np.uint32))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"^model\.vocab_size=50: .* holds the token 4294967295"):
        opened(tmp_path / "a.npy", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_no_more_than_a_chunk_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_CHUNK", 2**14)
    np.zeros(2**22, np.uint16).tofile(tmp_path / "a.bin")
    opened(tmp_path / "a.bin", tmp_path / "first")  # imports
    tracemalloc.start()
    train_batch(opened(tmp_path / "a.bin", tmp_path).train, 64, 16, seed=0, step=0)
    assert tracemalloc.get_traced_memory()[1] < 2**20  # of 8 MB
    tracemalloc.stop()


def header(shape: str) -> bytes:
    """A .npy file that says it holds so many tokens, and holds eight."""
    text = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(16)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.bin", b"", "holds no whole tokens"),
        ("a.bin", b"123", "holds no whole tokens"),
        ("a.npy", b"", "holds no whole tokens"),
        ("a.npy", b"no array", "holds no whole tokens"),
        ("a.npy", header("(9,)"), "holds no whole tokens"),
        ("a.npy", header("(1" + "0" * 31 + ",)"), "holds no whole tokens"),
        ("a.npy", header("(True,)"), "holds no whole tokens"),
        ("a.npy", header("(5,"), "holds no whole tokens"),
        ("a.npy", np.array([{"a": 1}], dtype=object), "holds no whole tokens"),
        ("a.npy", np.zeros((3, 4), np.uint16), "holds uint16 of shape \\(3, 4\\)"),
        ("a.npy", np.zeros(3, np.int64), "holds int64"),
        ("a.npy", np.zeros(3, ">u2"), "holds >u2"),
        ("a.npy", np.zeros(0, np.uint16), "holds uint16 of shape \\(0,\\)"),
        ("a.txt", b"words", "not a kind of file that is read"),
        ("empty", None, "a folder that holds none"),
        ("missing.bin", None, "no such file"),
        ("~nobody/a.bin", None, "no such file"),
        ("a.bin", np.zeros(1, np.uint16), "leaves the training or the validation part"),
    ],
)
def test_what_holds_no_tokens_is_one_line(tmp_path: Path, name: str, content: Any, said: str) -> None:
    path = Path(name) if name.startswith("~") else tmp_path / name
    if name == "empty":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content) if path.suffix == ".npy" else content.tofile(path)
    with pytest.raises(UserError, match=rf"^data\.(path|val_fraction)=.*{said}.*; allowed: ") as error:
        opened(path, tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cache").exists()
