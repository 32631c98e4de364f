"""A configuration of this project as something that a search, or a single run, trains."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from redline.command_line import one_line
from redline.errors import UserError
from redline.parts import Kind, find_part, subclass_of
from redline.search import Facts, Score, Trainable, Trial
from redline.training.settings import deciding_settings


@dataclass(frozen=True)
class Task(Trainable):
    """What the group `task` names: it trains what ``cfg`` describes, complete but for the value of ``key``
    and the seed. ``cfg`` has the smallest value that a search may try; ``largest``: the largest.
    """

    cfg: DictConfig
    key: str = "lr"
    largest: float | None = None
    warmup_key: ClassVar[str]  # the key of the warm-up steps; a short run is longer than they are

    @property
    def max_steps(self) -> int:
        return self.cfg.trainer.max_steps

    @property
    def devices(self) -> int:
        return self.cfg.trainer.devices

    @abstractmethod
    def check_run(self, directory: Path | None = None) -> None:
        """Raise UserError for a run that cannot work. ``directory``: where it is to be."""

    @abstractmethod
    def train(self, trial: Trial) -> Score:
        """One run, as ``cfg`` says, which has passed `check_run`."""

    @abstractmethod
    def check_value(self) -> None:
        """Raise UserError where the value cannot be that of a run: the cheap part of `check_run`."""

    def check(self) -> None:
        if self.cfg.trainer.resume is not None:
            # It holds a learning rate, which would be that of every rung.
            raise UserError(
                f"trainer.resume={self.cfg.trainer.resume}: allowed in a search: null; a search that was "
                "stopped goes on by itself"
            )
        with _users_mistakes():
            self.check_run()
            if self.largest is not None:
                self._with(self.largest).check_value()

    def _with(self, value: float) -> Self:
        cfg = copy.deepcopy(self.cfg)
        OmegaConf.update(cfg, self.key, value)
        return replace(self, cfg=cfg)

    def drop_value(self, settings: dict[Any, Any]) -> None:
        """What is searched: the ladder says its values."""
        *path, last = self.key.split(".")
        for name in path:
            settings = settings[name]
        settings.pop(last, None)

    def run(self, trial: Trial) -> Score:
        its = self._with(trial.value)
        its.cfg.seed = trial.seed
        its.cfg.trainer.precision = trial.facts.precision
        its.cfg.trainer.keep_checkpoint = False
        try:
            return its.train(trial)
        except InstantiationException as error:
            # Hydra wraps what a constructor raises, be it a crash or a UserError.
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from None
            raise

    def shortened(self, max_steps: int) -> Self:
        low, high = OmegaConf.select(self.cfg, self.warmup_key), self.max_steps
        if not low < max_steps < high:
            raise UserError(
                f"hydra.sweeper.short_run_steps={max_steps}: allowed: more than "
                f"{self.warmup_key}={low} and less than trainer.max_steps={high}, or null"
            )
        cfg = copy.deepcopy(self.cfg)
        OmegaConf.update(cfg, self.warmup_key, low)  # a share is that of the whole run, as the rules have it
        cfg.trainer.max_steps = max_steps
        return replace(self, cfg=cfg)


_TASK = Kind("a subclass of redline.training.trainable.Task", subclass_of(Task), positional=3)


def task_of(cfg: DictConfig, key: str = "lr", largest: float | None = None) -> Task:
    """The task that ``cfg.task`` names. Raises UserError."""
    # Its other keys are read by itself.
    task: Task = find_part("task", {"_target_": cfg.task.get("_target_")}, _TASK)(cfg, key, largest)
    return task


@dataclass(frozen=True)
class Training(Task):
    """The transformer of `model` on the text of `data`."""

    preload = ("redline.training.ranks",)
    warmup_key = "schedule.warmup_steps"

    def check_run(self, directory: Path | None = None) -> None:
        from redline.data import open_corpus
        from redline.training.check import check

        check(self.cfg, directory)
        if directory is not None:
            open_corpus(self.cfg)

    def check_value(self) -> None:
        from redline.training.check import check_parts

        check_parts(self.cfg)

    def settings(self) -> Mapping[str, Any]:
        from redline.data import open_corpus

        with _users_mistakes():
            corpus = open_corpus(self.cfg)  # one that is too small is told before the search has a folder
            settings = deciding_settings(self.cfg, corpus.identity)
        del settings["seed"]
        self.drop_value(settings)
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
        self.drop_value(cfg)
        recipe = {"lr": cfg["lr"]} if "lr" in cfg else {}
        for name in ("optimizer", "schedule", "init"):
            recipe |= _part(name, cfg[name])
        recipe |= {name: _in_words(cfg[name]) for name in ("loss", "gradient")}
        if cfg["norm_layer"]:  # a model that is not ours may have its own
            recipe["norm_layer"] = cfg["norm_layer"]["_target_"].rpartition(".")[2]
        return recipe | {key: cfg["trainer"][key] for key in ("max_steps",) if key in cfg["trainer"]}

    def train(self, trial: Trial) -> Score:
        from redline.training.ranks import launch

        return launch(self.cfg, trial)


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
