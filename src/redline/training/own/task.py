"""The task `lightning`: what a search asks of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from redline.search import Facts, Score, Trial
from redline.training.own.keys import check_keys
from redline.training.settings import deciding_settings
from redline.training.trainable import Task


@dataclass(frozen=True)
class OwnModule(Task):
    """A LightningModule with its own optimizer, Trainer arguments and data."""

    preload = ("redline.training.own.run",)
    warmup_key = "task.warmup_steps"

    def check_run(self, directory: Path | None = None) -> None:
        from redline.training.checkpoints import check_resume
        from redline.training.own.check import check

        check(self.cfg)
        check_resume(self.cfg, directory)

    def check_value(self) -> None:
        from redline.training.own.build import module_part

        check_keys(self.cfg)
        module_part(self.cfg)

    def settings(self) -> dict[str, Any]:
        settings = deciding_settings(self.cfg)
        del settings["seed"]
        self.drop_value(settings)
        return settings

    def facts(self) -> Facts:
        from redline.training.own.build import build_module, precision_of

        parameters = sum(its.numel() for its in build_module(self.cfg).parameters())
        precision = precision_of(self.cfg)
        return Facts(self.max_steps, parameters, precision=precision, recipe=self._recipe(precision))

    def _recipe(self, precision: str) -> dict[str, Any]:
        cfg: Any = OmegaConf.to_container(self.cfg, resolve=True)
        self.drop_value(cfg)
        recipe = {"lr": cfg["lr"]} if "lr" in cfg else {}
        for name in ("module", "data"):
            its = cfg["task"][name] or {}
            recipe |= {f"{name}.{key.strip('_')}": value for key, value in its.items()}
        recipe |= {f"trainer.{key}": value for key, value in cfg["task"]["trainer"].items()}
        return recipe | {"precision": precision, "max_steps": self.max_steps}

    def train(self, trial: Trial) -> Score:
        from redline.training.own.run import run

        if self.cfg.trainer.threads is None:
            self.cfg.trainer.threads = trial.threads
        return run(self.cfg, trial)
