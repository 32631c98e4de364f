"""Tokens that are there already: files of any size, read where they are."""

import hashlib
import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from redline.data.batches import Tokens
from redline.data.corpus import find_files, unreadable_files
from redline.data.manifest import (
    STATISTICS,
    Manifest,
    TokenCorpus,
    entropy,
    fingerprint_of,
    read_manifest,
    write_json,
    write_manifest,
)
from redline.errors import UserError
from redline.files import check_writable
from redline.parts import told

_CHUNK = 2**22  # tokens that are counted at once
_SAMPLES, _SAMPLE = 16, 4096  # so many places of a file are looked at, of so many bytes

log = logging.getLogger(__name__)


class Shards:
    """Several arrays as one, in their order. A slice may begin in one and end in another, as it may in
    another document.
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays
        self._ends = [*accumulate(map(len, arrays))]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, window: slice, /) -> np.ndarray:
        start, stop, _ = window.indices(len(self))
        pieces = [np.empty(0, np.uint16)]
        number = bisect_right(self._ends, start)
        while start < stop:
            array = self.arrays[number]
            begin = self._ends[number] - len(array)
            pieces.append(array[start - begin : stop - begin])
            start = self._ends[number]
            number += 1
        return pieces[1] if len(pieces) == 2 else np.concatenate(pieces)

    def cut(self, at: int) -> tuple["Shards", "Shards"]:
        """What is before and what is after the token number ``at``."""
        begins = [end - len(array) for end, array in zip(self._ends, self.arrays, strict=True)]
        cuts = [min(max(at - begin, 0), len(array)) for begin, array in zip(begins, self.arrays, strict=True)]
        pairs = [(array[:cut], array[cut:]) for cut, array in zip(cuts, self.arrays, strict=True)]
        return Shards([its for its, _ in pairs if len(its)]), Shards([its for _, its in pairs if len(its)])


class TokenFiles:
    """Files of tokens: .npy arrays (N,) of uint16 or uint32, and .bin files that hold nothing but tokens.

    They are mapped into memory where they are, and read as batches ask. Nothing is copied into the cache but
    what one pass over the training part counts.

    Args:
        path: a file, a folder, or a list of either; see `find_files`. They follow each other in this order.
        val_path: the same for the validation part; null: the last `data.val_fraction` of the tokens.
        token_type: of .bin files.
    """

    _SUFFIXES = (".bin", ".npy")
    _ALLOWED = "a .bin or .npy file of tokens, a folder that holds some, or a list of these"

    def __init__(self, path: Any, val_path: Any, token_type: str) -> None:
        self.path = path
        self.val_path = val_path
        self.token_type = token_type

    def identity(self) -> str:
        """By each file's name, its size, and 16 samples of its content, 4 kB each, evenly spread: hundreds of
        gigabytes are not read at each start. A change between the samples is not seen.
        """
        return fingerprint_of(
            token_type=self.token_type,
            files=[[_digest(key, path) for path in files] for key, files in self._files().items()],
        )

    def open(self, vocab_size: int, val_fraction: float, cache_dir: str | Path) -> TokenCorpus:
        """The first time this reads all tokens, in chunks, to count them; afterwards a few samples of each
        file, and its time.

        Raises:
            UserError: a file that holds no tokens, or a token that is not below ``vocab_size``.
        """
        files = self._files()
        parts = [Shards([self._mapped(key, path) for path in paths]) for key, paths in files.items()]
        if len(parts) == 1:
            parts = [*parts[0].cut(len(parts[0]) - round(len(parts[0]) * val_fraction))]
        train, val = parts
        if not (len(train) and len(val)):
            raise UserError(
                f"data.val_fraction={val_fraction}: leaves the training or the validation part of"
                f" {len(train) + len(val)} tokens empty; allowed: more in data.path, or another share"
            )
        identity = self.identity()
        fingerprint = fingerprint_of(
            files=identity,
            times=[path.stat().st_mtime_ns for paths in files.values() for path in paths],
            train_tokens=len(train),
        )
        folder = Path(cache_dir) / fingerprint

        def fits(manifest: Manifest) -> bool:
            return (manifest.train_tokens, manifest.val_tokens) == (len(train), len(val))

        manifest = read_manifest(folder, fingerprint, [STATISTICS], fits)
        if manifest is None:
            check_writable(cache_dir, "data.cache_dir")
            log.warning("tokens: %s in %s files; counting them once", f"{len(train):,}", len(train.arrays))
            counts_V = _count(train, vocab_size)
            size = max(np.flatnonzero(counts_V)[-1], np.flatnonzero(_count(val, vocab_size))[-1]) + 1
            manifest = Manifest(fingerprint, len(train), len(val), entropy(counts_V), int(size))
            folder.mkdir(parents=True, exist_ok=True)
            sizes = {"training": {"tokens": len(train)}, "validation": {"tokens": len(val)}}
            write_json(folder / STATISTICS, sizes)
            write_manifest(folder, manifest, [STATISTICS])
        _check_token(manifest.vocab_size - 1, vocab_size)
        return TokenCorpus(
            train, val, manifest.unigram_entropy, manifest.vocab_size, fingerprint, folder, identity
        )

    def _files(self) -> dict[str, list[Path]]:
        """By the key that names them."""
        named = {"data.path": self.path}
        if self.val_path is not None:
            named["data.val_path"] = self.val_path
        found = {}
        for key, its in named.items():
            with unreadable_files(key, self._ALLOWED):
                found[key] = find_files(key, its, self._SUFFIXES, self._ALLOWED)
        train = {path.resolve() for path in found["data.path"]}
        for path in found.get("data.val_path", []):
            if path.resolve() in train:
                raise UserError(f"data.val_path={path}: is in data.path too; allowed: other files")
        return found

    def _mapped(self, key: str, path: Path) -> np.ndarray:
        try:
            with unreadable_files(key, self._ALLOWED):
                if path.suffix.lower() == ".npy":
                    array = np.load(path, mmap_mode="r", allow_pickle=False)
                else:
                    array = np.memmap(path, np.dtype(self.token_type), mode="r")
        except UserError:
            raise
        # numpy raises whatever a crafted header leads to.
        except Exception as error:
            raise UserError(
                f"{key}={path}: holds no whole tokens ({told(error)}); allowed: {self._ALLOWED}"
            ) from error
        if array.ndim != 1 or array.dtype not in (np.uint16, np.uint32) or not len(array):
            raise UserError(
                f"{key}={path}: holds {array.dtype} of shape {array.shape}; allowed: one or more tokens of"
                " uint16 or uint32, in one dimension"
            )
        return np.asarray(array)  # still mapped; slices of a memmap take longer


def _digest(key: str, path: Path) -> list[Any]:
    with unreadable_files(key, TokenFiles._ALLOWED), path.open("rb") as file:
        size = file.seek(0, 2)
        digest = hashlib.blake2b(digest_size=16)
        for number in range(_SAMPLES):
            file.seek(max(size - _SAMPLE, 0) * number // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    return [path.name, size, digest.hexdigest()]


def _count(tokens: Shards, vocab_size: int) -> np.ndarray:
    """counts_V: how often each token occurs. Raises UserError for one that is not below ``vocab_size``."""
    counts_V = np.zeros(vocab_size, np.int64)
    for chunk in _chunks(tokens):
        _check_token(int(chunk.max()), vocab_size)
        counts_V += np.bincount(chunk, minlength=vocab_size)
    return counts_V


def _chunks(tokens: Tokens) -> Iterator[np.ndarray]:
    return (tokens[start : start + _CHUNK] for start in range(0, len(tokens), _CHUNK))


def _check_token(token: int, vocab_size: int) -> None:
    if token >= vocab_size:
        raise UserError(
            f"model.vocab_size={vocab_size}: data.path or data.val_path holds the token {token};"
            f" allowed: {token + 1} or more"
        )
