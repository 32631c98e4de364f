import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from redline.data.corpus import Corpus, TextFiles
from redline.data.manifest import TokenCorpus
from redline.data.token_cache import Text, prepare
from redline.data.tokenizer import BytePairs


def words(seed: int, count: int) -> str:
    """Text with repeated words, so that BPE finds pairs to merge."""
    draw = random.Random(seed)
    known = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 8))) for _ in range(200)]
    return " ".join(draw.choices(known, k=count))


def prepared(source: Any, cache_dir: Path, text: Any = None, **changes: Any) -> TokenCorpus:
    """``source``: a corpus, or a path of text; ``text``: what is done with it."""
    text = {"steps": {}, "tokenizer": BytePairs()} | (text or {})
    settings = {"vocab_size": 300, "split": "text", "val_fraction": 0.1, "token_type": "uint16"} | changes
    corpus: Corpus = TextFiles(source) if isinstance(source, str | Path | list) else source
    steps = text["steps"]
    return prepare(Text(corpus, steps, str([*steps]), text["tokenizer"]), cache_dir=cache_dir, **settings)


def same(a: TokenCorpus, b: TokenCorpus) -> bool:
    arrays = np.array_equal(a.train, b.train) and np.array_equal(a.val, b.val)
    return arrays and replace(a, train=b.train, val=b.val).__dict__ == b.__dict__


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
