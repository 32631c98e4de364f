"""Hydra's door to the search: `python src/train.py -m …` comes in here."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

import hydra_plugins.max_lr.config  # noqa: F401  # registers the schema


class MaxLRSweeper(Sweeper):
    """Gives the command line to the search. Hydra finds and makes it; nothing is decided here."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def sweep(self, arguments: list[str]) -> Any:
        # Hydra imports every module here that has no leading underscore, at every start; what a search
        # needs waits until there is one.
        from hydra_plugins.max_lr._search import search

        assert self.hydra_context is not None
        assert self.config is not None
        return search(self.settings, self.config, self.hydra_context, arguments)
