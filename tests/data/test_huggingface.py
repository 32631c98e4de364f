import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from data_helpers import prepared

from redline.data.huggingface import HuggingFace
from redline.errors import UserError


@pytest.fixture(autouse=True)
def _hermetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def jsonl(path: Path, texts: list[Any]) -> str:
    path.write_text("\n".join(json.dumps({"text": text, "number": i}) for i, text in enumerate(texts)))
    return str(path)


def test_what_load_dataset_opens(tmp_path: Path) -> None:
    corpus = HuggingFace("json", data_files=jsonl(tmp_path / "a.jsonl", ["one", "two", "three"]))

    assert list(corpus.documents()) == ["one", "two", "three"]
    assert list(corpus.documents()) == ["one", "two", "three"]
    part = HuggingFace("json", data_files=str(tmp_path / "a.jsonl"), split="train[:2]")
    assert list(part.documents()) == ["one", "two"]
    assert part.identity() != corpus.identity()


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    train = datasets.Dataset.from_dict({"text": ["a", "b"], "body": ["c", "d"]})
    test = datasets.Dataset.from_dict({"text": ["e"], "body": ["f"]})
    train.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "splits")

    assert list(HuggingFace(str(tmp_path / "one")).documents()) == ["a", "b"]
    assert list(HuggingFace(str(tmp_path / "splits"), text_column="body").documents()) == ["c", "d"]
    assert list(HuggingFace(str(tmp_path / "splits"), split="test").documents()) == ["e"]
    with pytest.raises(UserError, match=r"^data\.source\.split=dev: .*allowed: train, test$"):
        HuggingFace(str(tmp_path / "splits"), split="dev").identity()


def test_identity_follows_content_and_column(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    before = HuggingFace("json", data_files=jsonl(path, ["one", "two"])).identity()
    assert HuggingFace("json", data_files=str(path)).identity() == before

    changed = HuggingFace("json", data_files=jsonl(path, ["one", "TWO"]))
    assert list(changed.documents()) == ["one", "TWO"]
    assert changed.identity() != before

    identities = set()
    for texts in (["a", "b"], ["a", "c"]):
        dataset = datasets.Dataset.from_dict({"text": texts, "body": texts})
        dataset.save_to_disk(tmp_path / "saved")
        identities |= {
            HuggingFace(str(tmp_path / "saved"), text_column=key).identity() for key in ("text", "body")
        }
    assert len(identities) == 4


def test_it_feeds_the_token_cache(tmp_path: Path) -> None:
    corpus = HuggingFace("json", data_files=jsonl(tmp_path / "a.jsonl", ["some words", "again"] * 100))

    tokens = prepared(corpus, tmp_path / "cache", vocab_size=260, val_fraction=0.2)

    assert len(tokens.train) > len(tokens.val) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": None}, "data.path=null: "),
        ({"path": "missing"}, "data.path=missing: "),
        ({"path": "json", "data_files": "missing.jsonl"}, "data.path=json: "),
        ({"path": "json", "data_files": "a.jsonl", "split": "dev"}, "data.source.split=dev"),
        ({"path": "json", "data_files": "a.jsonl", "text_column": "body"}, "allowed: text, number"),
        ({"path": "json", "data_files": "a.jsonl", "text_column": "number"}, "row 0"),
        ({"path": "json", "data_files": "nulls.jsonl"}, "row 1"),
    ],
)
def test_what_cannot_be_read_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "a.jsonl", ["one"])
    jsonl(tmp_path / "nulls.jsonl", ["one", None])

    with pytest.raises(UserError) as error:
        list(HuggingFace(**arguments).documents())

    message = str(error.value)
    assert said in message
    assert message.startswith("data.")
    assert "allowed: " in message
    assert "\n" not in message


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)

    with pytest.raises(UserError, match=r"pip install 'redline\[huggingface\]'"):
        HuggingFace("anything").identity()
