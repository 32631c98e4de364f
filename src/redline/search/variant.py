"""One variant of a search: a norm strategy, and whatever else the command line varies with it."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Nothing here changes what a trial computes.
_NOT_IN_FINGERPRINT = ("lr", "search", "tracker", "monitor")
_NOT_IN_TRAINER = ("threads", "progress_bar", "checkpoint_every", "keep_checkpoint", "resume")


@dataclass(frozen=True)
class Variant:
    """``cfg`` is the configuration of its runs, complete but for LR and seed."""

    norm: str
    others: tuple[tuple[str, str], ...]  # further keys that the command line varies, with their values
    cfg: DictConfig
    scout: str | None = None  # the name of the variant that scouts for it
    is_scout: bool = False

    @property
    def name(self) -> str:
        name = ", ".join([self.norm, *(f"{key}={value}" for key, value in self.others)])
        return f"{name} (scout)" if self.is_scout else name

    def settings(self) -> dict[str, Any]:
        """Everything that decides what its trials compute, as plain values."""
        settings = OmegaConf.to_container(self.cfg, resolve=True, enum_to_str=True)
        assert isinstance(settings, dict)
        for key in _NOT_IN_FINGERPRINT:
            settings.pop(key, None)
        for key in _NOT_IN_TRAINER:
            settings["trainer"].pop(key, None)
        settings["data"].pop("cache_dir", None)
        return {str(key): value for key, value in settings.items()}


def with_scout(variant: Variant, scout_steps: int) -> tuple[Variant, Variant]:
    """A variant that waits for a scout, and the scout: the same, but for ``scout_steps`` steps.

    A scout has no time to learn, so that it learned nothing is not held against it.
    """
    cfg = copy.deepcopy(variant.cfg)
    cfg.trainer.max_steps = scout_steps
    if "no_learning" in cfg.get("divergence", {}):
        cfg.divergence.no_learning = None
    scout = replace(variant, cfg=cfg, is_scout=True)
    return replace(variant, scout=scout.name), scout


def fingerprint(variants: Sequence[Variant], ladder: Sequence[float], rest: Mapping[str, Any]) -> str:
    """The same for two commands that ask the same question."""
    asked = {
        "variants": {variant.name: variant.settings() for variant in variants},
        "ladder": list(ladder),
        **rest,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
