"""Text, and token caches, as somebody would make them who wants to do harm: told in one line, and soon."""

import json
import time
from pathlib import Path
from typing import Any

import datasets
import pytest
from data_helpers import files, prepared, same, words

from redline.data import huggingface, manifest, token_cache
from redline.data.corpus import TextFiles
from redline.data.huggingface import HuggingFace
from redline.data.manifest import TokenCorpus
from redline.errors import UserError


def nested(depth: int) -> str:
    return json.dumps({"text": "words"})[:-1] + ', "more": ' + "[" * depth + "]" * depth + "}"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("letters.txt", "x" * 3_000_000, "a word of more than 10000 characters"),
        ("digits.txt", "some words " + "7" * 3_000_000, "a word of more than"),
        ("spaces.md", "some words" + " " * 3_000_000, "a word of more than"),
        ("marks.txt", "some words " + "!" * 3_000_000, "a word of more than"),
        ("line.jsonl", json.dumps({"text": "é" * 3_000_000}), "a word of more than"),
        ("deep.jsonl", nested(5000), "line 1 is not JSON"),
        ("deeper.jsonl", nested(200_000), "line 1 is not JSON"),
        ("number.jsonl", '{"text": ' + "1" * 5000 + "}", "line 1 is not JSON"),
        ("half.jsonl", '{"text": "\\ud800"}', "is not UTF-8"),
        ("n" * 300 + ".txt", None, "cannot be read"),
        ("memory.txt", Path("/proc/self/mem"), "cannot be read"),
        ("loop.txt", Path("loop.txt"), "no such file"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_text_that_no_tokenizer_can_take_is_refused_soon(
    tmp_path: Path, name: str, content: str | Path | None, said: str
) -> None:
    path = tmp_path / name
    if isinstance(content, Path):
        path.symlink_to(content)
    elif content is not None:
        path.write_text(content)
    started = time.monotonic()
    with pytest.raises(UserError, match=rf"^data\.path=.*{said}.*; allowed: ") as refused:
        prepared(path, tmp_path / "cache")
    assert "\n" not in str(refused.value)
    assert time.monotonic() - started < 5
    assert not (tmp_path / "cache").exists()


def test_a_file_that_may_not_be_read_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in: root, as whom tests may run, may read everything."""
    path = tmp_path / "secret.txt"
    path.write_text("words")

    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(UserError, match=r"^data\.path=.*secret\.txt: cannot be read \(Permission denied\)"):
        list(TextFiles(path).documents())


def test_one_very_long_line_of_words_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(words(0, 50_000))
    assert len(prepared(tmp_path / "a.txt", tmp_path / "cache").train) > 1000


def test_a_hub_that_does_not_answer_is_not_asked_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"^data\.path=nosuch/thing: ") as refused:
        HuggingFace("nosuch/thing").identity()
    assert "\n" not in str(refused.value)
    assert time.monotonic() - started < 8


def test_a_word_without_end_in_a_dataset_names_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface, "_hub_answers", lambda path: True)
    datasets.Dataset.from_dict({"text": ["a b", "x" * 20_000]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match=r"^data\.path=.*saved: row 1: a word of more than"):
        list(HuggingFace(str(tmp_path / "saved")).documents())


def crafted(folder: Path, **entries: Any) -> None:
    """The manifest with other entries, and a checksum that is right."""
    path = folder / "manifest.json"
    stored = json.loads(path.read_text()) | entries
    del stored["checksum"]
    stored["checksum"] = manifest.checksum(manifest.Manifest(**stored), folder, token_cache._FILES)
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize(
    "lie",
    [
        lambda its: {"train_tokens": -1, "val_tokens": its.train.size + its.val.size + 1},
        lambda its: {"train_tokens": its.train.size + its.val.size, "val_tokens": 0},
        lambda its: {"train_tokens": float(its.train.size)},
        lambda its: {"unigram_entropy": float("nan")},
        lambda its: {"unigram_entropy": "5"},
        lambda its: {"vocab_size": 1 << 40},
        lambda its: {"vocab_size": 2},
        lambda its: {"vocab_size": True},
    ],
)
def test_a_cache_whose_numbers_lie_is_built_again(
    text_folder: Path, tmp_path: Path, tokens: TokenCorpus, lie: Any
) -> None:
    before = files(tokens.path)
    crafted(tokens.path, **lie(tokens))
    assert same(prepared(text_folder, tmp_path / "cache"), tokens)
    assert files(tokens.path) == before


def test_a_manifest_nested_without_end_is_built_again(
    text_folder: Path, tmp_path: Path, tokens: TokenCorpus
) -> None:
    (tokens.path / "manifest.json").write_text("[" * 100_000)
    assert same(prepared(text_folder, tmp_path / "cache"), tokens)
