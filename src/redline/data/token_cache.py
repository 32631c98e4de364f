"""A corpus' tokens in a memory-mapped file, made once and checked whenever they are opened.

``cache_dir/<fingerprint>/`` holds ``tokens.bin`` (training part, then validation part), ``tokenizer.json``
(for `tokenizers`, or the name of another tokenizer), ``statistics.json`` (how much there is, and what each
step dropped) and ``manifest.json``. The fingerprint covers everything that decides the content, so processes
that build the same folder at once write the same bytes, and need no lock. Each file is written under another
name and renamed when complete, the manifest last; its checksum covers all. A killed build leaves a
``*.tmp`` file behind, which nothing reads.
"""

import importlib.metadata
import itertools
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from redline.data.corpus import Corpus
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
from redline.data.steps import Count, Documents, Step, applied, content_digest
from redline.data.tokenizer import Encoder, Tokenizer
from redline.errors import UserError
from redline.files import atomic_write, check_writable

FORMAT = 2  # raise it whenever the same corpus and settings give other bytes
_FILES = ("tokenizer.json", STATISTICS, "tokens.bin")
_PACKAGES = ("ftfy", "datasketch")  # another version may give other results

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Text:
    """What the tokens are made of: a source, steps over its documents, and a tokenizer."""

    source: Corpus
    steps: Mapping[str, Step]
    steps_settings: str  # differs whenever the steps do
    tokenizer: Tokenizer

    def identity(self) -> str:
        """Differs whenever the tokens may, but for `prepare`'s settings."""
        return fingerprint_of(
            source=self.source.identity(), steps=self.steps_settings, tokenizer=self.tokenizer.identity()
        )


def prepare(
    text: Text, *, vocab_size: int, split: str, val_fraction: float, token_type: str, cache_dir: str | Path
) -> TokenCorpus:
    """Opens the tokens of ``text``, after building them where they are missing or damaged.

    The text is split before anything is learned from it, and a tokenizer that is trained sees the training
    part only. Opening reads the corpus and the tokens once, to check both, and tokenizes nothing.

    Args:
        vocab_size: tokens; the tokenizer has no more.
        split: ``text``: the last ``val_fraction`` of all characters are the validation part, even if that
            cuts a document. ``document``: whole documents are, each by a hash of its content, so that equal
            ones are on one side, whatever else the corpus holds; ``val_fraction`` is the share to expect.
        val_fraction: between 0 and 1.
        token_type: ``uint16`` or ``uint32``.

    Raises:
        UserError: a setting out of range, or a corpus too short to be split; before any work where possible.
    """
    dtype = np.dtype(token_type)
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

    identity = text.identity()
    fingerprint = fingerprint_of(
        format=FORMAT,
        corpus=identity,
        packages=_versions() if text.steps else [],
        vocab_size=vocab_size,
        split=split,
        val_fraction=val_fraction,
        token_type=str(dtype),
    )
    folder = Path(cache_dir) / fingerprint
    opened = _open(folder, fingerprint, dtype, vocab_size, identity)
    if opened is None:
        _build(folder, fingerprint, text, vocab_size, split, val_fraction, dtype)
        opened = _open(folder, fingerprint, dtype, vocab_size, identity)
        assert opened is not None, f"{folder}: a cache just written does not open"
    return opened


def _versions() -> list[str]:
    found = []
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return found


def _open(
    folder: Path, fingerprint: str, dtype: np.dtype, vocab_size: int, identity: str
) -> TokenCorpus | None:
    """None when there is no complete and undamaged cache."""

    def mapped() -> np.ndarray:
        return np.memmap(folder / "tokens.bin", dtype=dtype, mode="r")

    def fits(manifest: Manifest) -> bool:
        tokens = mapped()
        whole = manifest.train_tokens + manifest.val_tokens == len(tokens)
        return whole and int(tokens.max()) < manifest.vocab_size <= vocab_size

    manifest = read_manifest(folder, fingerprint, _FILES, fits)
    if manifest is None:
        return None
    tokens = mapped()
    return TokenCorpus(
        train=tokens[: manifest.train_tokens],
        val=tokens[manifest.train_tokens :],
        unigram_entropy=manifest.unigram_entropy,
        vocab_size=manifest.vocab_size,
        fingerprint=fingerprint,
        path=folder,
        identity=identity,
    )


@dataclass
class _Part(Count):
    """Of one side of the split; documents that are cut count on both."""

    bytes: int = 0  # UTF-8, an end mark for each document included
    tokens: int = 0


def _build(
    folder: Path,
    fingerprint: str,
    text: Text,
    vocab_size: int,
    split: str,
    val_fraction: float,
    dtype: np.dtype,
) -> None:
    least = text.tokenizer.least_vocab_size()
    if vocab_size < least:
        name = type(text.tokenizer).__name__
        raise UserError(
            f"model.vocab_size={vocab_size}: too small for data.tokenizer ({name}); allowed: {least} or more"
        )
    check_writable(folder.parent, "data.cache_dir")
    with applied(text.source, text.steps, folder.parent) as (documents, counts):
        left = [*counts.values()][-1]
        train_documents, val_documents = _split(documents, left, split, val_fraction)
        encoder = text.tokenizer.encoder(train_documents(), vocab_size)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "tokenizer.json") as file:
            file.write(encoder.saved.encode())
        with atomic_write(folder / "tokens.bin") as file:
            train_counts_V, train = _encode(encoder, train_documents(), dtype, file)
            _, val = _encode(encoder, val_documents(), dtype, file)
    statistics = _statistics(counts, train, val)
    write_json(folder / STATISTICS, statistics)
    # Warnings are what is shown by default.
    log.log(logging.WARNING if text.steps else logging.INFO, "tokens: %s", _told(statistics))
    manifest = Manifest(fingerprint, train.tokens, val.tokens, entropy(train_counts_V), encoder.size)
    write_manifest(folder, manifest, _FILES)


def _split(documents: Documents, left: Count, split: str, val_fraction: float) -> tuple[Documents, Documents]:
    """The training part and the validation part of ``documents``. ``left``: the size of both together."""
    train_characters = left.characters - round(left.characters * val_fraction)
    train, val = partial(_head, documents, train_characters), partial(_tail, documents, train_characters)
    if split == "document":
        train, val = (partial(_side, documents, val_fraction, side) for side in (False, True))
        train_characters = sum(len(document) for document in train())
    if not 0 < train_characters < left.characters:
        raise UserError(
            f"data.val_fraction={val_fraction}: with data.split={split} it leaves the training or the"
            f" validation part of {left.documents} documents, {left.characters} characters, empty; allowed:"
            " more text in data.path, another data.val_fraction"
            + ", or data.split=text"
            * (split == "document")
        )
    return train, val


def _head(documents: Documents, characters: int) -> Iterator[str]:
    for document in documents():
        if characters <= 0:
            return
        yield document[:characters]
        characters -= len(document)


def _tail(documents: Documents, characters: int) -> Iterator[str]:
    for document in documents():
        if len(document) > characters:
            yield document[max(characters, 0) :]
        characters -= len(document)


def _side(documents: Documents, val_fraction: float, validation: bool) -> Iterator[str]:
    return (its for its in documents() if is_validation(its, val_fraction) == validation)


def is_validation(document: str, val_fraction: float) -> bool:
    """By the content alone: a corpus may grow without a document changing sides."""
    digest = content_digest(document)
    return int.from_bytes(digest) < val_fraction * 256 ** len(digest)


def _encode(
    encoder: Encoder, documents: Iterator[str], dtype: np.dtype, file: BinaryIO
) -> tuple[np.ndarray, _Part]:
    """Appends the documents' tokens to ``file``, each document closed by the end-of-text token.

    Returns:
        counts_V, how often each token occurs; and how much it was.
    """
    end_of_text = np.array([encoder.end_of_text], dtype)
    counts_V = np.zeros(encoder.size, dtype=np.int64)
    part = _Part()
    documents = part.of(documents)
    while chunk := list(itertools.islice(documents, 256)):
        for document, ids in zip(chunk, encoder.encode(chunk), strict=True):
            tokens = np.concatenate([np.asarray(ids, dtype), end_of_text])
            file.write(tokens.tobytes())
            counts_V += np.bincount(tokens, minlength=len(counts_V))
            part.bytes += len(document.encode()) + 1
            part.tokens += len(tokens)
    return counts_V, part


def _statistics(counts: Mapping[str, Count], train: _Part, val: _Part) -> dict[str, Any]:
    """What came from the source, what each step left of it and dropped (shares of what it was given, below 0
    where it added), and what the tokens hold.
    """
    source, *after = counts.items()
    before, steps = source[1], {}
    for name, its in after:
        steps[name] = asdict(its) | {
            "documents_dropped": _share_dropped(before.documents, its.documents),
            "characters_dropped": _share_dropped(before.characters, its.characters),
        }
        before = its
    return {"source": asdict(source[1]), "steps": steps, "training": asdict(train), "validation": asdict(val)}


def _share_dropped(before: int, after: int) -> float:
    return 1 - after / before if before else 0.0


def _told(statistics: dict[str, Any]) -> str:
    """In one line."""
    source, steps, train, val = statistics.values()
    return "; ".join(
        [
            f"{source['documents']:,} documents of {source['characters']:,} characters",
            *(
                f"{name} dropped {its['documents_dropped']:.1%} and {its['characters_dropped']:.1%} of them"
                for name, its in steps.items()
            ),
            f"{train['tokens']:,} tokens for training, {val['tokens']:,} for validation",
        ]
    )
