"""A corpus from the composed configuration."""

from typing import Any

from redline.data.batches import check_one_batch
from redline.data.corpus import Corpus
from redline.data.token_cache import TokenCorpus, prepare
from redline.parts import Kind, find_part

_SOURCE = Kind(
    "a class with the methods `documents` and `identity`",
    lambda target: hasattr(target, "documents") and hasattr(target, "identity"),
)


def open_corpus(cfg: Any) -> TokenCorpus:
    """Opens, and where needed builds, the tokens that ``cfg.data`` and ``cfg.model.vocab_size`` ask for.

    Raises:
        UserError: a key out of range, a corpus that cannot be read, or one that does not fill a batch.
    """
    data = cfg.data
    corpus = prepare(
        build_source(cfg),
        vocab_size=cfg.model.vocab_size,
        val_fraction=data.val_fraction,
        token_type=str(data.token_type),
        cache_dir=data.cache_dir,
    )
    check_one_batch(corpus.train, data.sequence_length, data.batch_size, part="training")
    check_one_batch(corpus.val, data.sequence_length, data.batch_size, part="validation")
    return corpus


def corpus_identity(cfg: Any) -> str:
    """A digest of the corpus' content. Raises UserError where it cannot be read."""
    return build_source(cfg).identity()


def build_source(cfg: Any) -> Corpus:
    """What `data.source` describes; nothing is read yet. Raises UserError."""
    return find_part("data.source", cfg.data.source, _SOURCE)()
