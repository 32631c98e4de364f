import json
from pathlib import Path

import pytest
from data_helpers import prepared, words

from redline.data.manifest import TokenCorpus


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    """Six documents, 14 kB, in all three formats."""
    folder = tmp_path / "text"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text(words(1, 600))
    (folder / "b.md").write_text(words(2, 600))
    lines = [json.dumps({"text": words(seed, 300), "body": "other"}) for seed in (3, 4, 5)]
    (folder / "deep" / "c.jsonl").write_text("\n".join(lines))
    (folder / "deep" / "d.txt").write_text(words(6, 600))
    return folder


@pytest.fixture
def tokens(text_folder: Path, tmp_path: Path) -> TokenCorpus:
    return prepared(text_folder, tmp_path / "cache")
