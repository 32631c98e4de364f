"""A corpus' tokens in a memory-mapped file, made once and checked whenever they are opened.

``cache_dir/<fingerprint>/`` holds ``tokens.bin`` (training part, then validation part), ``tokenizer.json``
and ``manifest.json``. The fingerprint covers everything that decides the content, so processes that
build the same folder at once write the same bytes, and need no lock. Each file is written under another name
and renamed when complete, the manifest last; its checksum covers all three. A killed build leaves a
``*.tmp`` file behind, which nothing reads.
"""

import hashlib
import importlib.metadata
import itertools
import json
import logging
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tokenizers import Tokenizer

from redline.data.corpus import Corpus
from redline.data.tokenizer import check_vocab_size, end_of_text_id, train_tokenizer
from redline.errors import UserError
from redline.files import atomic_write, check_writable

FORMAT = 1  # raise it whenever the same corpus and settings give other bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TokenCorpus:
    """A tokenized corpus; ``train`` and ``val`` are read from disk as they are used."""

    train: np.ndarray  # (N,) np.memmap of uint16 or uint32
    val: np.ndarray
    unigram_entropy: float  # nats a token, of the training part
    bytes_per_token: float  # UTF-8, of the validation part
    vocab_size: int  # tokens the tokenizer has: as asked for, or fewer on a small corpus
    fingerprint: str
    path: Path  # the folder; its tokenizer.json is a Hugging Face `tokenizers` file
    identity: str  # of the text; see `Corpus.identity`


@dataclass(frozen=True)
class _Manifest:
    fingerprint: str
    train_tokens: int
    val_tokens: int
    unigram_entropy: float
    bytes_per_token: float
    vocab_size: int

    @property
    def is_sound(self) -> bool:
        """Whether a corpus can have these numbers: a crafted file may hold any."""
        counts = (self.train_tokens, self.val_tokens, self.vocab_size)
        sizes = (self.unigram_entropy, self.bytes_per_token)
        return all(type(count) is int and count > 0 for count in counts) and all(
            type(size) is float and 0 <= size < math.inf for size in sizes
        )


def prepare(
    corpus: Corpus, *, vocab_size: int, val_fraction: float, token_type: str, cache_dir: str | Path
) -> TokenCorpus:
    """Opens the tokens of ``corpus``, after building them where they are missing or damaged.

    The text is split before anything is learned from it: its last ``val_fraction`` characters are the
    validation part, and the tokenizer is trained on the rest. Opening reads the corpus and the tokens
    once, to check both, and tokenizes nothing.

    Args:
        vocab_size: tokens; 256 or more.
        val_fraction: between 0 and 1.
        token_type: ``uint16`` or ``uint32``.

    Raises:
        UserError: a setting out of range, or a corpus too short to be split; before any work where possible.
    """
    dtype = np.dtype(token_type)
    check_vocab_size(vocab_size)
    largest = int(np.iinfo(dtype).max) + 1
    if vocab_size > largest:
        raise UserError(
            f"model.vocab_size={vocab_size}: does not fit data.token_type={dtype} (at most {largest});"
            " allowed: a smaller vocabulary, or data.token_type=uint32"
        )
    if not 0 < val_fraction < 1:
        raise UserError(
            f"data.val_fraction={val_fraction}: out of range; allowed: more than 0 and less than 1"
        )

    identity = corpus.identity()
    fingerprint = _fingerprint(
        format=FORMAT,
        tokenizers=importlib.metadata.version("tokenizers"),
        corpus=identity,
        vocab_size=vocab_size,
        val_fraction=val_fraction,
        token_type=str(dtype),
    )
    folder = Path(cache_dir) / fingerprint
    opened = _open(folder, fingerprint, dtype, vocab_size, identity)
    if opened is None:
        _build(folder, fingerprint, corpus, vocab_size, val_fraction, dtype)
        opened = _open(folder, fingerprint, dtype, vocab_size, identity)
        assert opened is not None, f"{folder}: a cache just written does not open"
    return opened


def _fingerprint(**settings: object) -> str:
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()


def _open(
    folder: Path, fingerprint: str, dtype: np.dtype, vocab_size: int, identity: str
) -> TokenCorpus | None:
    """None when there is no complete and undamaged cache."""
    manifest_path = folder / "manifest.json"
    if not manifest_path.exists():
        return None
    try:
        stored = json.loads(manifest_path.read_text(encoding="utf-8"))
        checksum = stored.pop("checksum")
        manifest = _Manifest(**stored)
        tokens = np.memmap(folder / "tokens.bin", dtype=dtype, mode="r")
        intact = (
            manifest.fingerprint == fingerprint
            and manifest.is_sound
            and manifest.vocab_size <= vocab_size
            and manifest.train_tokens + manifest.val_tokens == len(tokens)
            and checksum == _checksum(manifest, folder)
            and int(tokens.max()) < manifest.vocab_size
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        # Whatever is wrong with the files, they are built again.
        intact = False
    if not intact:
        log.warning("%s: damaged; tokenizing the corpus again", folder)
        return None
    return TokenCorpus(
        train=tokens[: manifest.train_tokens],
        val=tokens[manifest.train_tokens :],
        unigram_entropy=manifest.unigram_entropy,
        bytes_per_token=manifest.bytes_per_token,
        vocab_size=manifest.vocab_size,
        fingerprint=fingerprint,
        path=folder,
        identity=identity,
    )


def _checksum(manifest: _Manifest, folder: Path) -> int:
    """CRC-32 of the manifest's other entries, the tokenizer and all tokens (about 1 s for 1e9 of uint16)."""
    checksum = zlib.crc32(json.dumps(asdict(manifest), sort_keys=True).encode())
    checksum = zlib.crc32((folder / "tokenizer.json").read_bytes(), checksum)
    return zlib.crc32(np.memmap(folder / "tokens.bin", dtype=np.uint8, mode="r").data, checksum)


def _build(
    folder: Path, fingerprint: str, corpus: Corpus, vocab_size: int, val_fraction: float, dtype: np.dtype
) -> None:
    check_writable(folder.parent, "data.cache_dir")
    # Documents are read once for each use rather than kept: a corpus may be larger than memory.
    characters = sum(len(document) for document in corpus.documents())
    train_characters = characters - round(characters * val_fraction)
    if not 0 < train_characters < characters:
        raise UserError(
            f"data.val_fraction={val_fraction}: leaves the training or the validation part of {characters}"
            " characters empty; allowed: more text in data.path, or another data.val_fraction"
        )
    tokenizer = train_tokenizer(_head(corpus.documents(), train_characters), vocab_size)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "tokenizer.json") as file:
        file.write(tokenizer.to_str().encode())
    with atomic_write(folder / "tokens.bin") as file:
        train_counts_V, _ = _encode(tokenizer, _head(corpus.documents(), train_characters), dtype, file)
        val_counts_V, val_bytes = _encode(tokenizer, _tail(corpus.documents(), train_characters), dtype, file)
    manifest = _Manifest(
        fingerprint=fingerprint,
        train_tokens=int(train_counts_V.sum()),
        val_tokens=int(val_counts_V.sum()),
        unigram_entropy=_entropy(train_counts_V),
        bytes_per_token=val_bytes / int(val_counts_V.sum()),
        vocab_size=tokenizer.get_vocab_size(),
    )
    entries = asdict(manifest) | {"checksum": _checksum(manifest, folder)}
    with atomic_write(folder / "manifest.json") as file:
        file.write(json.dumps(entries, indent=2).encode())


def _head(documents: Iterable[str], characters: int) -> Iterator[str]:
    for document in documents:
        if characters <= 0:
            return
        yield document[:characters]
        characters -= len(document)


def _tail(documents: Iterable[str], characters: int) -> Iterator[str]:
    for document in documents:
        if len(document) > characters:
            yield document[max(characters, 0) :]
        characters -= len(document)


def _encode(
    tokenizer: Tokenizer, documents: Iterable[str], dtype: np.dtype, file: BinaryIO
) -> tuple[np.ndarray, int]:
    """Appends the documents' tokens to ``file``, each document closed by the end-of-text token.

    Returns:
        counts_V, how often each token occurs; and the documents' UTF-8 bytes, end marks included.
    """
    end_of_text = end_of_text_id(tokenizer)
    counts_V = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)
    size = 0
    remaining = iter(documents)
    while chunk := list(itertools.islice(remaining, 256)):
        for document, encoding in zip(chunk, tokenizer.encode_batch_fast(chunk), strict=True):
            tokens = np.array([*encoding.ids, end_of_text], dtype=dtype)
            file.write(tokens.tobytes())
            counts_V += np.bincount(tokens, minlength=len(counts_V))
            size += len(document.encode()) + 1
    return counts_V, size


def _entropy(counts_V: np.ndarray) -> float:
    """Nats: the loss of a model that knows each token's frequency and ignores its context."""
    probabilities = counts_V[counts_V > 0] / counts_V.sum()
    return float(-(probabilities * np.log(probabilities)).sum())
