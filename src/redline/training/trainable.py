"""A configuration of this project as something that a search trains."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from redline.command_line import one_line
from redline.errors import UserError
from redline.search import Facts, Score, Trainable, Trial
from redline.training.settings import deciding_settings


@dataclass(frozen=True)
class Training(Trainable):
    """The transformer under ``cfg``, complete but for the value of ``key`` and the seed. ``cfg`` has the
    smallest value that the search may try; ``largest``: the largest.
    """

    cfg: DictConfig
    key: str = "lr"
    largest: float | None = None
    preload = ("redline.training.launch",)

    @property
    def max_steps(self) -> int:
        return self.cfg.trainer.max_steps

    @property
    def devices(self) -> int:
        return self.cfg.trainer.devices

    def check(self) -> None:
        from redline.training.check import check, check_parts

        if self.cfg.trainer.resume is not None:
            # It holds a learning rate, which would be that of every rung.
            raise UserError(
                f"trainer.resume={self.cfg.trainer.resume}: allowed in a search: null; a search that was "
                "stopped goes on by itself"
            )
        with _users_mistakes():
            check(self.cfg)
            if self.largest is not None:
                check_parts(self._with(self.largest))

    def _with(self, value: float) -> DictConfig:
        cfg = copy.deepcopy(self.cfg)
        OmegaConf.update(cfg, self.key, value)
        return cfg

    def settings(self) -> Mapping[str, Any]:
        from redline.data import open_corpus

        with _users_mistakes():
            corpus = open_corpus(self.cfg)  # one that is too small is told before the search has a folder
            settings = deciding_settings(self.cfg, corpus.identity)
        del settings["seed"]
        _drop(settings, self.key.split("."))
        return settings

    def facts(self) -> Facts:
        from redline.training.build import count_parameters, precision_of
        from redline.training.optimizers import decay_shares, optimizer_from

        tokens_per_step = self.cfg.data.batch_size * self.cfg.data.sequence_length
        precision = precision_of(self.cfg)
        decay = decay_shares(optimizer_from(self.cfg.optimizer)) if self.key == "lr" else (0.0, 0.0)
        return Facts(
            self.max_steps,
            count_parameters(self.cfg),
            tokens_per_step,
            precision,
            {**self._recipe(), "tokens_per_step": tokens_per_step, "precision": precision},
            *decay,
        )

    def _recipe(self) -> dict[str, Any]:
        """The settings that an edge depends on, without what is searched."""
        cfg: Any = OmegaConf.to_container(self.cfg, resolve=True)
        _drop(cfg, self.key.split("."))
        recipe = {"lr": cfg["lr"]} if "lr" in cfg else {}
        for name in ("optimizer", "schedule", "init"):
            recipe |= _part(name, cfg[name])
        recipe |= {name: _in_words(cfg[name]) for name in ("loss", "gradient")}
        if cfg["norm_layer"]:  # a model that is not ours may have its own
            recipe["norm_layer"] = cfg["norm_layer"]["_target_"].rpartition(".")[2]
        return recipe | {key: cfg["trainer"][key] for key in ("max_steps",) if key in cfg["trainer"]}

    def run(self, trial: Trial) -> Score:
        from redline.training.launch import launch

        cfg = self._with(trial.value)
        cfg.seed = trial.seed
        cfg.trainer.precision = trial.facts.precision
        cfg.trainer.keep_checkpoint = False
        try:
            return launch(cfg, trial)
        except InstantiationException as error:
            # Hydra wraps what a constructor raises, be it a crash or a UserError.
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise

    def shortened(self, max_steps: int) -> "Training":
        low, high = self.cfg.schedule.warmup_steps, self.max_steps
        if not low < max_steps < high:
            raise UserError(
                f"hydra.sweeper.short_run_steps={max_steps}: allowed: more than "
                f"schedule.warmup_steps={low} and less than trainer.max_steps={high}, or null"
            )
        cfg = copy.deepcopy(self.cfg)
        cfg.schedule.warmup_steps = low  # where it is a share, that of the whole run, as the rules have it
        cfg.trainer.max_steps = max_steps
        return replace(self, cfg=cfg)


@contextmanager
def _users_mistakes() -> Iterator[None]:
    """What Hydra says of settings, such as of an argument that there is not, is the user's to hear, in one
    line; no crash, which would be tried again.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from error


def _part(name: str, its: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A part's name and arguments; those of its groups are ``PATTERN.ARGUMENT``."""
    found = {f"{prefix}{key}": value for key, value in its.items() if key[0] != "_" and key != "groups"}
    if "_target_" in its:
        found = {name: its["_target_"].rpartition(".")[2], **found}
    for pattern, group in its.get("groups", {}).items():
        found |= _part(pattern, group, f"{pattern}.")
    return found


def _in_words(parts: Mapping[str, Any]) -> str | None:
    """Named parts and their arguments, such as ``clip max_norm=1.0``."""
    its = {
        name: [f"{key}={value}" for key, value in part.items() if not key.startswith("_")]
        for name, part in parts.items()
        if part is not None
    }
    return "; ".join(" ".join([name, *values]) for name, values in its.items()) or None


def _drop(settings: dict[Any, Any], path: list[str]) -> None:
    """The searched value is the ladder's to say."""
    for name in path[:-1]:
        settings = settings[name]
    settings.pop(path[-1], None)
