"""Hydra's sweeper for `python src/train.py -m …`: it calls the search."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

import hydra_plugins.max_lr.config  # noqa: F401  # registers the schema


class MaxLRSweeper(Sweeper):
    """Passes the command line to the search. Hydra finds and creates it; nothing is decided here."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def sweep(self, arguments: list[str]) -> Any:
        # At every start, Hydra imports each module here without a leading underscore. What only a search
        # needs is imported later.
        from hydra_plugins.max_lr._search import search

        assert self.hydra_context is not None
        assert self.config is not None
        return search(self.settings, self.config, self.hydra_context, arguments)
