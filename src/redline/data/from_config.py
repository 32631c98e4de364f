"""A corpus from the composed configuration."""

import json
from typing import Any

from omegaconf import OmegaConf

from redline.bounds import shown
from redline.data.batches import check_one_batch
from redline.data.manifest import TokenCorpus
from redline.data.shards import TokenFiles
from redline.data.token_cache import Text, prepare
from redline.errors import UserError
from redline.parts import Kind, find_part, has_parameters, subclass_of

_SOURCE = Kind(
    "a class with the methods `documents` and `identity`",
    lambda target: (
        (hasattr(target, "documents") and hasattr(target, "identity")) or subclass_of(TokenFiles)(target)
    ),
)
_STEP = Kind(
    "a function whose first argument is `documents`, and which yields texts",
    has_parameters("documents"),
    positional=1,
)
_TOKENIZER = Kind(
    "a class with the methods `identity`, `least_vocab_size` and `encoder`",
    lambda target: all(hasattr(target, name) for name in ("identity", "least_vocab_size", "encoder")),
)
_WITHOUT_TEXT: dict[str, Any] = {"steps": {}, "tokenizer": None, "split": "text"}


def open_corpus(cfg: Any) -> TokenCorpus:
    """Opens, and where needed builds, the tokens that ``cfg.data`` and ``cfg.model.vocab_size`` ask for.

    Raises:
        UserError: a key out of range, a corpus that cannot be read, or one that does not fill a batch.
    """
    data, size = cfg.data, cfg.model.vocab_size
    built = build_corpus(cfg)
    if isinstance(built, TokenFiles):
        corpus = built.open(size, data.val_fraction, data.cache_dir)
    else:
        corpus = prepare(
            built,
            vocab_size=size,
            split=str(data.split),
            val_fraction=data.val_fraction,
            token_type=str(data.token_type),
            cache_dir=data.cache_dir,
        )
    check_one_batch(corpus.train, data.sequence_length, data.batch_size, part="training")
    check_one_batch(corpus.val, data.sequence_length, data.batch_size, part="validation")
    return corpus


def corpus_identity(cfg: Any) -> str:
    """A digest of the corpus' content. Raises UserError where it cannot be read."""
    return build_corpus(cfg).identity()


def build_corpus(cfg: Any) -> Text | TokenFiles:
    """What `data` describes; nothing is read yet. Raises UserError."""
    data: Any = OmegaConf.to_container(cfg.data, resolve=True, enum_to_str=True)
    source = find_part("data.source", data["source"], _SOURCE)()
    if isinstance(source, TokenFiles):
        for key, without in _WITHOUT_TEXT.items():
            if data[key] != without:
                raise UserError(
                    f"data.{key}={shown(data[key])}: data.source reads tokens, which have no documents;"
                    " allowed: leave it out, or data=text"
                )
        return source
    if data["val_path"] is not None:
        raise UserError(
            f"data.val_path={shown(data['val_path'])}: data.split takes the validation part from data.source;"
            " allowed: null, or data=tokens"
        )
    steps = {name: spec for name, spec in data["steps"].items() if spec is not None}
    return Text(
        source,
        {name: find_part(f"data.steps.{name}", spec, _STEP) for name, spec in steps.items()},
        json.dumps([*steps.items()]),
        find_part("data.tokenizer", data["tokenizer"], _TOKENIZER)(),
    )
