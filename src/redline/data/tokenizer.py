"""What `data.tokenizer` names: a tokenizer that is trained on the corpus, or one that is there already."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from redline.bounds import shown
from redline.data.corpus import needed
from redline.errors import UserError
from redline.parts import told

BYTES = 256  # the alphabet: every text can be tokenized with it

# A byte that text does not hold marks the end of a document. Being part of the alphabet, it takes no
# place in the vocabulary.
END_OF_TEXT = "\0"


@dataclass(frozen=True)
class Encoder:
    """A tokenizer that is ready."""

    size: int  # more than any token
    end_of_text: int  # the token that closes a document
    encode: Callable[[list[str]], Iterable[Sequence[int] | np.ndarray]]  # the tokens of each document
    saved: str  # what tokenizer.json holds


class Tokenizer(Protocol):
    def identity(self) -> str:
        """Text that differs whenever the tokens may; fast, and without a network."""

    def least_vocab_size(self) -> int:
        """The smallest `model.vocab_size` that holds its tokens. Raises UserError where it cannot be had."""

    def encoder(self, documents: Iterable[str], vocab_size: int) -> Encoder:
        """``documents``: the training part, read only by what is trained."""


class BytePairs:
    """Byte-level BPE, trained on the training part to `model.vocab_size` tokens."""

    def identity(self) -> str:
        return f"byte pairs, tokenizers {tokenizers.__version__}"

    def least_vocab_size(self) -> int:
        return BYTES

    def encoder(self, documents: Iterable[str], vocab_size: int) -> Encoder:
        return _encoder(trained := train_tokenizer(documents, vocab_size), end_of_text_id(trained))


class _Ready:
    """One that the corpus does not change."""

    def ready(self) -> Encoder:
        """Raises UserError where it cannot be had."""
        raise NotImplementedError

    def least_vocab_size(self) -> int:
        return self.ready().size

    def encoder(self, documents: Iterable[str], vocab_size: int) -> Encoder:
        return self.ready()


class Bytes(_Ready):
    """A token for each byte of UTF-8, and 256 for the end of a document."""

    def identity(self) -> str:
        return "bytes"

    def ready(self) -> Encoder:
        def encode(texts: list[str]) -> Iterable[np.ndarray]:
            return (np.frombuffer(text.encode(), np.uint8) for text in texts)

        return Encoder(BYTES + 1, BYTES, encode, json.dumps({"tokenizer": self.identity()}))


class TokenizerFile(_Ready):
    """A tokenizer.json that the Hugging Face library `tokenizers` wrote.

    Nothing is added around a text, nothing is cut, and a special token's name inside a text is plain text.

    Args:
        path: of the file.
        end_of_text: the token that closes each document; one of the file's.
    """

    _ALLOWED = "a tokenizer.json of the Hugging Face library `tokenizers`"

    def __init__(self, path: Any, end_of_text: str) -> None:
        self.path = path
        self.end_of_text = end_of_text

    def identity(self) -> str:
        digest = hashlib.blake2b(self._content(), digest_size=16).hexdigest()
        return f"{digest} {self.end_of_text}, tokenizers {tokenizers.__version__}"

    def ready(self) -> Encoder:
        content = self._content()
        try:
            tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        # The library raises no narrower class.
        except Exception as error:
            raise UserError(f"data.tokenizer.path={self.path}: is none; allowed: {self._ALLOWED}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        end_of_text = tokenizer.token_to_id(self.end_of_text)
        if end_of_text is None:
            special = [its.content for its in tokenizer.get_added_tokens_decoder().values() if its.special]
            raise UserError(
                f"data.tokenizer.end_of_text={self.end_of_text}: no token of data.tokenizer.path={self.path};"
                f" allowed: {', '.join(special[:10]) or 'one of its tokens'}"
            )
        return _encoder(tokenizer, end_of_text)

    def _content(self) -> bytes:
        try:
            return Path("" if self.path is None else os.path.expanduser(str(self.path))).read_bytes()
        except (OSError, ValueError) as error:
            raise UserError(
                f"data.tokenizer.path={shown(self.path)}: cannot be read ({told(error)});"
                f" allowed: {self._ALLOWED}"
            ) from error


class TikToken(_Ready):
    """An encoding of the library `tiktoken`, which downloads its vocabulary at the first use.

    Args:
        encoding: its name, such as ``gpt2`` or ``cl100k_base``.
    """

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding

    def identity(self) -> str:
        return f"tiktoken {self.encoding}"

    def ready(self) -> Encoder:
        tiktoken = needed("tiktoken", "data.tokenizer", "tiktoken")
        key, names = f"data.tokenizer.encoding={shown(self.encoding)}", tiktoken.list_encoding_names()
        if self.encoding not in names:
            raise UserError(f"{key}: no such encoding; allowed: {', '.join(names)}")
        try:
            opened = tiktoken.get_encoding(self.encoding)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{key}: tiktoken cannot have its vocabulary ({type(error).__name__}); allowed: a network, or"
                " a folder TIKTOKEN_CACHE_DIR that holds it"
            ) from error
        try:
            end_of_text = opened.eot_token
        except KeyError as error:
            raise UserError(f"{key}: has no <|endoftext|>; allowed: {', '.join(names)}") from error
        saved = json.dumps({"tokenizer": self.identity()})
        return Encoder(opened.n_vocab, end_of_text, opened.encode_ordinary_batch, saved)


def _encoder(tokenizer: tokenizers.Tokenizer, end_of_text: int) -> Encoder:
    def encode(texts: list[str]) -> Iterable[Sequence[int]]:
        return (its.ids for its in tokenizer.encode_batch_fast(texts, add_special_tokens=False))

    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    return Encoder(size, end_of_text, encode, tokenizer.to_str())


def train_tokenizer(documents: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Trains on ``documents``; the same documents give the same tokenizer, on any number of threads.

    The vocabulary has ``vocab_size`` tokens, or fewer when the documents have too few pairs left to merge.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def end_of_text_id(tokenizer: tokenizers.Tokenizer) -> int:
    (token,) = tokenizer.encode(END_OF_TEXT).ids
    return token
