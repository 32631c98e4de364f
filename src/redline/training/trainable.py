"""A configuration of this project as something that a search trains."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from redline.command_line import one_line
from redline.errors import UserError
from redline.search import Facts, Score, Trainable, Trial

# None of these changes what a trial computes; the rules are the search's.
_NO_MATTER = ("search", "tracker", "monitor", "divergence", "seed")
_NO_MATTER_IN_TRAINER = ("threads", "progress_bar", "checkpoint_every", "keep_checkpoint", "resume")


@dataclass(frozen=True)
class Training(Trainable):
    """The transformer under ``cfg``, complete but for the value of ``key`` and the seed."""

    cfg: DictConfig
    key: str = "lr"
    preload = ("redline.training.run",)

    @property
    def max_steps(self) -> int:
        return self.cfg.trainer.max_steps

    def check(self) -> None:
        from redline.training.check import check

        if self.cfg.trainer.resume is not None:
            # It holds a learning rate, which would be that of every rung.
            raise UserError(
                f"trainer.resume={self.cfg.trainer.resume}: allowed in a search: null; a search that was "
                "stopped goes on by itself"
            )
        with _users_mistakes():
            check(self.cfg)

    def settings(self) -> Mapping[str, Any]:
        from redline.data import corpus_identity

        settings = OmegaConf.to_container(self.cfg, resolve=True, enum_to_str=True)
        assert isinstance(settings, dict)
        if settings["divergence"]["forecast"] == "end":
            settings["forecast"] = [settings["divergence"]["forecaster"], settings["monitor"]]
        for key in _NO_MATTER:
            del settings[key]
        for key in _NO_MATTER_IN_TRAINER:
            settings["trainer"].pop(key)
        for key in ("cache_dir", "path", "source"):
            settings["data"].pop(key)
        with _users_mistakes():
            settings["data"]["corpus"] = corpus_identity(self.cfg)
        _drop(settings, self.key.split("."))
        return {str(key): value for key, value in settings.items()}

    def facts(self) -> Facts:
        from redline.data import open_corpus
        from redline.training.build import count_parameters, precision_of

        open_corpus(self.cfg)
        data = self.cfg.data
        return Facts(
            max_steps=self.max_steps,
            parameters=count_parameters(self.cfg),
            tokens_per_step=data.batch_size * data.sequence_length,
            precision=precision_of(self.cfg),
        )

    def run(self, trial: Trial) -> Score:
        from redline.training.run import run

        cfg = copy.deepcopy(self.cfg)
        OmegaConf.update(cfg, self.key, trial.value)
        cfg.seed = trial.seed
        cfg.trainer.precision = trial.facts.precision
        cfg.trainer.keep_checkpoint = False
        if cfg.trainer.threads is None:
            cfg.trainer.threads = trial.threads
        try:
            return run(cfg, trial)
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
        cfg.trainer.max_steps = max_steps
        return Training(cfg, self.key)


@contextmanager
def _users_mistakes() -> Iterator[None]:
    """What Hydra says of settings, such as of an argument that there is not, is the user's to hear, in one
    line; no crash, which would be tried again.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from error


def _drop(settings: dict[Any, Any], path: list[str]) -> None:
    """The searched value is the ladder's to say."""
    for name in path[:-1]:
        settings = settings[name]
    settings.pop(path[-1], None)
