"""Preparing documents: each step takes documents, in order, and gives those that it keeps, changed or not.

A step is a function whose first argument is an iterator of texts and which yields texts; its other arguments
are those of its YAML. Steps see each document once. What removes duplicates keeps the first of them, so that
none is on both sides of a split.
"""

import hashlib
import re
import tempfile
import unicodedata
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO

import numpy as np
from annotated_types import Ge, Le

from redline.bounds import Epsilon, Seed, Steps
from redline.data.corpus import Corpus, check_words, needed
from redline.errors import UserError
from redline.parts import told

Step = Callable[[Iterator[str]], Iterator[str]]
Documents = Callable[[], Iterator[str]]  # from the first one on, at each call

_CONTROLS = {
    code: None for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc" and chr(code) not in "\t\n"
}
_BLANKS = re.compile(r"(?<=\S)[^\S\n]{2,}(?=\S)")  # inside a line: at its beginning they are indentation
_ENDS = re.compile(r"[^\S\n]+$", re.MULTILINE)


def clean(documents: Iterator[str], empty_lines: Steps) -> Iterator[str]:
    """Repairs text that was decoded wrongly, and leaves out what does not show.

    That is: mojibake and HTML entities (`ftfy`, which leaves quotes as they are), then Unicode NFC, no
    control characters but tab and newline, one space for a run of blanks inside a line, no blanks at its end,
    and none around the document. A document without anything else is left out.

    Args:
        empty_lines: so many in a row stay.
    """
    ftfy = needed("ftfy", "data.steps", "cleaning")
    newlines = re.compile(rf"\n{{{empty_lines + 2},}}")
    for document in documents:
        text = ftfy.fix_text(document, uncurl_quotes=False, normalization="NFC").translate(_CONTROLS)
        text = _ENDS.sub("", _BLANKS.sub(" ", text))
        if text := newlines.sub("\n" * (empty_lines + 1), text).strip():
            yield text


def length(documents: Iterator[str], min_characters: Steps, max_characters: Steps | None) -> Iterator[str]:
    """Leaves out what is shorter or longer; ``max_characters``: null for any."""
    for document in documents:
        if min_characters <= len(document) and (max_characters is None or len(document) <= max_characters):
            yield document


def exact(documents: Iterator[str]) -> Iterator[str]:
    """Leaves out a document that came before, character by character. Takes about 100 bytes of memory for
    each that stays.
    """
    seen = set()
    for document in documents:
        if (digest := content_digest(document)) not in seen:
            seen.add(digest)
            yield document


def near(
    documents: Iterator[str],
    threshold: Epsilon,
    permutations: Annotated[int, Ge(16), Le(4096)],
    shingle: Annotated[int, Ge(1), Le(1000)],
    seed: Seed,
) -> Iterator[str]:
    """Leaves out a document that resembles one that stayed: the Jaccard similarity of their sets of shingles,
    estimated by MinHash (Broder 1997), is ``threshold`` or more.

    Candidates come from locality-sensitive hashing, so a pair at the threshold may be missed; each is then
    held against the estimate. Takes about 6 kB of memory at 128 permutations for each document that stays.

    Args:
        permutations: of MinHash; the estimate's standard error is at most 0.5 / sqrt(permutations).
        shingle: words in a row, split at blanks (Lee et al. 2022 take 5). A text without blanks is one word,
            and so resembles only itself.
        seed: of the permutations.
    """
    datasketch = needed("datasketch", "data.steps", "cleaning")
    # Wrong candidates are told by the estimate, missed ones are not: so rather many candidates.
    index = datasketch.MinHashLSH(threshold=threshold, num_perm=permutations, weights=(0.1, 0.9))
    none = datasketch.MinHash(num_perm=permutations, seed=seed)
    kept: list[np.ndarray] = []
    for document in documents:
        words = document.split()
        shingles = {" ".join(words[at : at + shingle]) for at in range(max(1, len(words) - shingle + 1))}
        signature = none.copy()
        signature.update_batch([its.encode() for its in shingles])
        values = signature.hashvalues
        if all((values == kept[number]).mean() < threshold for number in index.query(signature)):
            index.insert(len(kept), signature)
            kept.append(values)
            yield document


def content_digest(document: str) -> bytes:
    """16 bytes that differ where the text does."""
    return hashlib.blake2b(document.encode(), digest_size=16).digest()


@dataclass
class Count:
    documents: int = 0
    characters: int = 0

    def of(self, documents: Iterator[str]) -> Iterator[str]:
        """The documents, which it counts as they pass."""
        for document in documents:
            self.documents += 1
            self.characters += len(document)
            yield document


@contextmanager
def applied(
    corpus: Corpus, steps: Mapping[str, Step], folder: Path
) -> Iterator[tuple[Documents, dict[str, Count]]]:
    """What the steps leave of a corpus, and how much came out of the source and of each step, by its name.

    Without steps the corpus is read again for each use. With some, the documents are kept in a file without
    a name in ``folder``: they may be more than memory holds, and near duplicates take long to find.
    """
    counts = {name: Count() for name in ("source", *steps)}
    documents = counts["source"].of(corpus.documents())
    if not steps:
        deque(documents, maxlen=0)
        yield corpus.documents, counts
        return
    for name, step in steps.items():
        documents = counts[name].of(_checked(name, step, documents))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        sizes = array("Q")
        for document in documents:
            sizes.append(file.write(document.encode()))
        yield partial(_read, file, sizes), counts


def _read(file: BinaryIO, sizes: Sequence[int]) -> Iterator[str]:
    start = 0
    for size in sizes:
        file.seek(start)
        yield file.read(size).decode()
        start += size


def _checked(name: str, step: Step, documents: Iterator[str]) -> Iterator[str]:
    """Raises: UserError where the step fails, and for what no tokenizer can take."""
    try:
        for document in step(documents):
            if not isinstance(document, str):
                raise UserError(f"data.steps.{name}: gives {type(document).__name__}; allowed: texts")
            document.encode()  # half a character cannot be
            check_words(document, f"data.steps.{name}")
            yield document
    except (UserError, OSError):
        raise
    # Whatever a step of the user's own raises.
    except Exception as error:
        raise UserError(f"data.steps.{name}: {told(error)}; allowed: a step that yields texts") from error
