"""What a folder of the cache says of a corpus' tokens, and whether its files are as they were written."""

import hashlib
import json
import logging
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from redline.data.batches import Tokens
from redline.files import atomic_write

STATISTICS = "statistics.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TokenCorpus:
    """A tokenized corpus; ``train`` and ``val`` are read from disk as they are used."""

    train: Tokens  # (N,) of uint16 or uint32
    val: Tokens
    unigram_entropy: float  # nats a token, of the training part
    vocab_size: int  # more than any token: the tokenizer's size, where it is known
    fingerprint: str
    path: Path  # the folder; its statistics.json says how much there is
    identity: str  # of what decides the tokens, wherever its files are


@dataclass(frozen=True)
class Manifest:
    fingerprint: str
    train_tokens: int
    val_tokens: int
    unigram_entropy: float
    vocab_size: int

    @property
    def is_sound(self) -> bool:
        """Whether a corpus can have these numbers: a crafted file may hold any."""
        counts = (self.train_tokens, self.val_tokens, self.vocab_size)
        entropy = self.unigram_entropy
        return all(type(count) is int and count > 0 for count in counts) and (
            type(entropy) is float and 0 <= entropy < math.inf
        )


def fingerprint_of(**settings: object) -> str:
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()


def read_manifest(
    folder: Path, fingerprint: str, files: Sequence[str], fits: Callable[[Manifest], bool]
) -> Manifest | None:
    """None where there is none; None and a warning where it or one of ``files`` is not as it was written, or
    does not say what ``fits`` the tokens.
    """
    path = folder / "manifest.json"
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        written = stored.pop("checksum")
        manifest = Manifest(**stored)
        intact = manifest.fingerprint == fingerprint and manifest.is_sound
        if intact and written == checksum(manifest, folder, files) and fits(manifest):
            return manifest
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass  # whatever is wrong with the files, they are built again
    log.warning("%s: damaged; it is built again", folder)
    return None


def write_manifest(folder: Path, manifest: Manifest, files: Sequence[str]) -> None:
    """The last thing that is written: ``files`` must be there."""
    write_json(folder / "manifest.json", asdict(manifest) | {"checksum": checksum(manifest, folder, files)})


def write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=2).encode())


def checksum(manifest: Manifest, folder: Path, files: Sequence[str]) -> int:
    """CRC-32 of the manifest's other entries and of the files (about 1 s for 1e9 tokens of uint16)."""
    found = zlib.crc32(json.dumps(asdict(manifest), sort_keys=True).encode())
    for name in files:
        found = zlib.crc32(np.memmap(folder / name, dtype=np.uint8, mode="r").data, found)
    return found


def entropy(counts_V: np.ndarray) -> float:
    """Nats: the loss of a model that knows each token's frequency and ignores its context."""
    probabilities = counts_V[counts_V > 0] / counts_V.sum()
    return float(-(probabilities * np.log(probabilities)).sum())
