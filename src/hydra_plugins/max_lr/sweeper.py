"""Hydra's door to the search: `python src/train.py -m …` comes in here."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig


@dataclass
class MaxLRSweeperConf:
    """`hydra.sweeper.*`; the values are in conf/hydra/sweeper/max_lr.yaml."""

    _target_: str = "hydra_plugins.max_lr.sweeper.MaxLRSweeper"
    storage: str = MISSING
    workers: int | None = MISSING
    seeds: int = MISSING
    vote: str = MISSING
    tolerance: float = MISSING
    reference: str = MISSING
    retries: int = MISSING
    beat_every: float = MISSING
    patience: float = MISSING


ConfigStore.instance().store(
    group="hydra/sweeper", name="max_lr_schema", node=MaxLRSweeperConf, provider="redline"
)


class MaxLRSweeper(Sweeper):
    """Gives the command line to the search. Hydra finds and makes it; nothing is decided here."""

    def __init__(self, **settings: Any) -> None:
        self.settings = MaxLRSweeperConf(**settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def sweep(self, arguments: list[str]) -> Any:
        # Hydra imports every plugin at every start: what a search needs waits until there is one.
        from hydra_plugins.max_lr.search import search

        assert self.hydra_context is not None
        assert self.config is not None
        return search(self.settings, self.config, self.hydra_context.config_loader, arguments)
