import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from redline.data.corpus import TextFiles
from redline.data.token_cache import TokenCorpus, prepare


def words(seed: int, count: int) -> str:
    """Text with repeated words, so that BPE finds pairs to merge."""
    draw = random.Random(seed)
    known = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 8))) for _ in range(200)]
    return " ".join(draw.choices(known, k=count))


def prepared(path: Any, cache_dir: Path, **changes: Any) -> TokenCorpus:
    settings = {"vocab_size": 300, "val_fraction": 0.1, "token_type": "uint16"} | changes
    return prepare(TextFiles(path), cache_dir=cache_dir, **settings)


def same(a: TokenCorpus, b: TokenCorpus) -> bool:
    arrays = np.array_equal(a.train, b.train) and np.array_equal(a.val, b.val)
    return arrays and replace(a, train=b.train, val=b.val).__dict__ == b.__dict__


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
