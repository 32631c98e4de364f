"""Byte-level BPE."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from redline.errors import UserError

BYTES = 256  # the alphabet: every text can be tokenized with it

# A byte that text does not hold marks the end of a document. Being part of the alphabet, it takes no
# place in the vocabulary.
END_OF_TEXT = "\0"


def check_vocab_size(vocab_size: int) -> None:
    """Raises: UserError when the vocabulary cannot hold the alphabet."""
    if vocab_size < BYTES:
        raise UserError(
            f"model.vocab_size={vocab_size}: too small for a byte-level tokenizer; allowed: {BYTES} or more"
        )


def train_tokenizer(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains on ``documents``; the same documents give the same tokenizer, on any number of threads.

    The vocabulary has ``vocab_size`` tokens, or fewer when the documents have too few pairs left to merge.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def end_of_text_id(tokenizer: Tokenizer) -> int:
    (token,) = tokenizer.encode(END_OF_TEXT).ids
    return token
