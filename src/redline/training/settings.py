"""Which settings decide what a run computes, to compare two searches, or a run and its checkpoint."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

import redline.config  # noqa: F401  # a worker that is given a configuration can resolve its shares

# None of these changes what a run computes; the rules are the search's.
_NO_MATTER = ("search", "tracker", "monitor", "divergence", "plan")
_NO_MATTER_IN_TRAINER = (
    "devices",
    "num_nodes",
    "node_command",
    "strategy",
    "rank_timeout",
    "threads",
    "progress_bar",
    "checkpoint_every",
    "keep_checkpoint",
    "checkpoint_activations",
    "dry_run",
    "resume",
)


def deciding_settings(cfg: DictConfig, corpus: str | None = None) -> dict[str, Any]:
    """The settings as plain values; of the corpus its content, not its place. Raises UserError.

    ``corpus``: its identity where that is known; it takes a reading of the whole text.
    """
    from redline.data import corpus_identity

    settings: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    if settings["divergence"]["forecast"] == "end":
        settings["forecast"] = [settings["divergence"]["forecaster"], settings["monitor"]]
    for key in _NO_MATTER:
        del settings[key]
    for key in _NO_MATTER_IN_TRAINER:
        settings["trainer"].pop(key)
    for key in ("cache_dir", "path", "val_path", "source", "tokenizer"):
        settings["data"].pop(key)
    if OmegaConf.is_missing(cfg.data, "source"):  # a task of the user's own has other data
        return settings
    settings["data"]["corpus"] = corpus_identity(cfg) if corpus is None else corpus
    del settings["task"]  # all that it has to say is in the other groups
    return settings
