import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import tiktoken
from data_helpers import prepared, words
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from redline.data.tokenizer import (
    END_OF_TEXT,
    BytePairs,
    Bytes,
    TikToken,
    TokenizerFile,
    end_of_text_id,
    train_tokenizer,
)
from redline.errors import UserError

TRAINED = train_tokenizer([words(1, 2000)], 400)


def test_the_vocabulary_has_the_size_asked_for_where_the_text_allows() -> None:
    assert TRAINED.get_vocab_size() == 400
    assert train_tokenizer(["ab"], 400).get_vocab_size() == 257  # every byte, and "ab"
    assert train_tokenizer([words(1, 2000)], 256).get_vocab_size() == 256


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    assert TRAINED.decode(TRAINED.encode(text).ids, skip_special_tokens=False) == text


def test_the_end_of_text_is_one_token_of_the_alphabet() -> None:
    assert TRAINED.decode([end_of_text_id(TRAINED)]) == END_OF_TEXT
    assert end_of_text_id(TRAINED) < 256


def test_another_process_with_another_number_of_threads_trains_the_same_tokenizer() -> None:
    code = (
        "from data_helpers import words; from redline.data.tokenizer import train_tokenizer;"
        "print(train_tokenizer([words(1, 2000)], 400).to_str())"
    )
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert Tokenizer.from_str(child.stdout).to_str() == TRAINED.to_str()


def file_of(path: Path) -> Path:
    """A tokenizer.json that frames each text, cuts it, and knows a special token."""
    tokenizer, special = Tokenizer.from_str(TRAINED.to_str()), "<|endoftext|>"
    tokenizer.add_special_tokens([special])
    frame = [(special, tokenizer.token_to_id(special))]
    tokenizer.post_processor = processors.TemplateProcessing(f"{special} $A {special}", special_tokens=frame)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(path))
    return path


def tiny_encoding(name: str) -> tiktoken.Encoding:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256}
    return tiktoken.Encoding(
        name, pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 300}
    )


TEXT = "ab é <|endoftext|> c"


def test_bytes() -> None:
    encoder = Bytes().encoder([], 1000)

    assert (encoder.size, encoder.end_of_text) == (257, 256)
    assert [bytes(ids.tolist()) for ids in encoder.encode([TEXT, ""])] == [TEXT.encode(), b""]


def test_a_file_takes_a_text_as_it_is(tmp_path: Path) -> None:
    encoder = TokenizerFile(file_of(tmp_path / "tokenizer.json"), "<|endoftext|>").encoder([], 1000)
    texts = [TEXT, "a"]
    found = list(encoder.encode(texts))

    assert (encoder.size, encoder.end_of_text) == (401, 400)
    assert max(map(max, found)) < 400
    assert list(map(TRAINED.decode, found)) == texts


def test_tiktoken_takes_a_text_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the encoding itself: its own vocabularies need a network."""
    encoding = tiny_encoding("gpt2")
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "gpt2", encoding)
    encoder = TikToken("gpt2").encoder([], 1000)
    (ids,) = encoder.encode([TEXT])

    assert (encoder.size, encoder.end_of_text) == (301, 300)
    assert list(ids)[:2] == [256, ord(" ")]
    assert max(ids) < 300
    assert encoding.decode(list(ids)) == TEXT


def test_tiktoken_without_a_network_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any) -> None:
        raise requests.ConnectionError("no\nnetwork")

    monkeypatch.delitem(tiktoken.registry.ENCODINGS, "gpt2", raising=False)
    monkeypatch.setattr(tiktoken.load, "read_file_cached", offline)
    with pytest.raises(UserError, match=r"^data\.tokenizer\.encoding=gpt2: .*a network") as error:
        TikToken("gpt2").least_vocab_size()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": None}, "data.tokenizer.path=null: cannot be read"),
        ({"path": "missing.json"}, "data.tokenizer.path=missing.json: cannot be read"),
        ({"path": "bad.json"}, "data.tokenizer.path=bad.json: is none; allowed: a tokenizer.json"),
        ({"path": "latin.json"}, "data.tokenizer.path=latin.json: is none"),
        ({"path": "good.json", "end_of_text": "</s>"}, "data.tokenizer.end_of_text=</s>: no token of"),
    ],
)
def test_what_is_no_tokenizer_file_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text('{"model": 3}')
    Path("latin.json").write_bytes(b"\xff")
    file_of(Path("good.json"))
    with pytest.raises(UserError) as error:
        TokenizerFile(**{"end_of_text": "<|endoftext|>"} | arguments).least_vocab_size()
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["gpt-2", "", "a\nb"])
def test_an_unknown_encoding_is_the_users_mistake(encoding: str) -> None:
    with pytest.raises(
        UserError, match=r"^data\.tokenizer\.encoding=.*: no such encoding; allowed: gpt2, "
    ) as told:
        TikToken(encoding).least_vocab_size()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("choice", "least"),
    [
        (lambda path: BytePairs(), 256),
        (lambda path: Bytes(), 257),
        (lambda path: TokenizerFile(path, "<|endoftext|>"), 401),
    ],
    ids=["byte pairs", "bytes", "file"],
)
def test_a_vocabulary_below_the_tokenizers_is_the_users_mistake(
    text_folder: Path, tmp_path: Path, choice: Callable[[Path], Any], least: int
) -> None:
    text = {"tokenizer": choice(file_of(tmp_path / "tokenizer.json"))}
    said = rf"^model\.vocab_size={least - 1}: too small for data\.tokenizer .*allowed: {least} or more$"
    with pytest.raises(UserError, match=said):
        prepared(text_folder, tmp_path / "cache", text, vocab_size=least - 1)
    assert not (tmp_path / "cache").exists()
    assert prepared(text_folder, tmp_path / "cache", text, vocab_size=least).vocab_size == least


def test_another_tokenizer_is_another_cache_with_its_own_tokens(text_folder: Path, tmp_path: Path) -> None:
    caches = [
        prepared(text_folder, tmp_path / "cache", {"tokenizer": its}, vocab_size=1000)
        for its in (
            BytePairs(),
            Bytes(),
            TokenizerFile(file_of(tmp_path / "tokenizer.json"), "<|endoftext|>"),
        )
    ]

    assert len({its.path for its in caches}) == len({its.identity for its in caches}) == 3
    assert [its.val[-1] for its in caches][1:] == [256, 400]
    text = (text_folder / "a.txt").read_bytes()
    assert bytes(caches[1].train[: len(text)].tolist()) == text
