"""Text in, batches of tokens out.

Nothing exported here imports torch, so a search's coordinator can prepare the tokens and still start fast.
The Lightning side is `redline.data.datamodule.TokenData`.
"""

from redline.data.batches import train_batch, val_batches
from redline.data.corpus import Corpus, PackagedCorpus, TextFiles
from redline.data.from_config import build_corpus, corpus_identity, open_corpus
from redline.data.huggingface import HuggingFace
from redline.data.manifest import TokenCorpus
from redline.data.shards import TokenFiles
from redline.data.token_cache import Text, prepare
from redline.data.tokenizer import Tokenizer

__all__ = [
    "Corpus",
    "HuggingFace",
    "PackagedCorpus",
    "Text",
    "TextFiles",
    "TokenCorpus",
    "TokenFiles",
    "Tokenizer",
    "build_corpus",
    "corpus_identity",
    "open_corpus",
    "prepare",
    "train_batch",
    "val_batches",
]
