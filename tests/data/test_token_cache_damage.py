"""A cache that is damaged, half written, or written by two processes at once."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_helpers import files, prepared

from redline.data import token_cache
from redline.data.manifest import TokenCorpus


def truncate(folder: Path) -> None:
    os.truncate(folder / "tokens.bin", (folder / "tokens.bin").stat().st_size - 2)


def truncate_inside_a_token(folder: Path) -> None:
    os.truncate(folder / "tokens.bin", (folder / "tokens.bin").stat().st_size - 1)


def empty(folder: Path) -> None:
    os.truncate(folder / "tokens.bin", 0)


def flip(name: str) -> Callable[[Path], None]:
    def flip_a_byte(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return flip_a_byte


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edit_manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(change(manifest)))

    return edit


DAMAGES = {
    "truncated": truncate,
    "truncated inside a token": truncate_inside_a_token,
    "empty": empty,
    "no tokens": remove("tokens.bin"),
    "no tokenizer": remove("tokenizer.json"),
    "no manifest": remove("manifest.json"),
    "token flipped": flip("tokens.bin"),
    "tokenizer flipped": flip("tokenizer.json"),
    "no statistics": remove("statistics.json"),
    "statistics flipped": flip("statistics.json"),
    "manifest flipped": flip("manifest.json"),
    "manifest of another version": edit_manifest(lambda manifest: manifest | {"format": 0}),
    "manifest without an entry": edit_manifest(lambda manifest: {k: manifest[k] for k in list(manifest)[1:]}),
    "manifest of another cache": edit_manifest(lambda manifest: manifest | {"fingerprint": "0" * 32}),
    "split moved": edit_manifest(
        lambda manifest: (
            manifest
            | {"train_tokens": manifest["train_tokens"] - 1, "val_tokens": manifest["val_tokens"] + 1}
        )
    ),
    "entropy edited": edit_manifest(lambda manifest: manifest | {"unigram_entropy": 1.0}),
    "manifest is not an object": edit_manifest(lambda manifest: [manifest]),
    "manifest cut": lambda folder: os.truncate(folder / "manifest.json", 40),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_found_out_and_built_again(
    text_folder: Path, tmp_path: Path, tokens: TokenCorpus, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    before = files(tokens.path)
    DAMAGES[damage](tokens.path)
    assert files(tokens.path) != before

    with caplog.at_level(logging.WARNING):
        again = prepared(text_folder, tmp_path / "cache")

    assert files(again.path) == before
    assert again.unigram_entropy == tokens.unigram_entropy
    assert ("damaged" in caplog.text) == (damage != "no manifest")


KILLED_WHILE_WRITING = """
import os, sys
from data_helpers import prepared
replace = os.replace
def kill(source, target):
    if str(target).endswith(sys.argv[3]):
        os.kill(os.getpid(), 9)
    replace(source, target)
os.replace = kill
prepared(sys.argv[1], sys.argv[2])
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, **pipes)


@pytest.mark.parametrize("unfinished", ["tokenizer.json", "tokens.bin", "statistics.json", "manifest.json"])
def test_a_build_killed_half_way_is_built_again(
    text_folder: Path, tmp_path: Path, tokens: TokenCorpus, unfinished: str
) -> None:
    cache_dir = tmp_path / "killed"
    assert start(KILLED_WHILE_WRITING, text_folder, cache_dir, unfinished).wait() == -9
    (folder,) = cache_dir.iterdir()
    (leftover,) = folder.glob(f"{unfinished}.*.tmp")

    again = prepared(text_folder, cache_dir)

    leftover.unlink()
    assert files(again.path) == files(tokens.path)


def test_a_build_that_fails_leaves_nothing_half_written(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(token_cache, "_encode", full)
    with pytest.raises(OSError, match="no space left"):
        prepared(text_folder, tmp_path / "cache")

    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["tokenizer.json"]


PREPARE_WHEN_TOLD = """
import sys
from data_helpers import prepared
print("ready", flush=True)
sys.stdin.readline()
tokens = prepared(sys.argv[1], sys.argv[2])
print(tokens.train.sum(), tokens.val.sum(), tokens.unigram_entropy)
"""


def test_processes_that_build_at_once_end_well_and_alike(
    text_folder: Path, tmp_path: Path, tokens: TokenCorpus
) -> None:
    cache_dir = tmp_path / "shared"
    children = [start(PREPARE_WHEN_TOLD, text_folder, cache_dir) for _ in range(2)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    outputs = [child.communicate()[0] for child in children]

    assert [child.returncode for child in children] == [0, 0]
    assert set(outputs) == {f"{tokens.train.sum()} {tokens.val.sum()} {tokens.unigram_entropy}\n"}
    (folder,) = cache_dir.iterdir()
    assert files(folder) == files(tokens.path)
