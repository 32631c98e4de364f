"""The sweeper's own part of the configuration: the engine's options, and what only a command line has."""

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from redline.search.options import Options


@dataclass
class CommandLine:
    """The values are in conf/hydra/sweeper/max_lr.yaml."""

    _target_: str = "hydra_plugins.max_lr.sweeper.MaxLRSweeper"
    jobs: int | None = MISSING
    dry_run: bool = MISSING
    tolerance: float = MISSING


# Hydra fills the schema field by field, so it cannot use the frozen class itself.
_OPTIONS = [(option.name, option.type, field(default=MISSING)) for option in fields(Options)]
MaxLRSweeperConf = make_dataclass("MaxLRSweeperConf", _OPTIONS, bases=(CommandLine,))


def split_settings(settings: dict[str, Any]) -> tuple[Options, CommandLine]:
    """The engine's options, and the rest."""
    names = {option.name for option in fields(Options)}
    options = Options(**{name: value for name, value in settings.items() if name in names})
    return options, CommandLine(**{name: value for name, value in settings.items() if name not in names})


ConfigStore.instance().store(
    group="hydra/sweeper", name="max_lr_schema", node=MaxLRSweeperConf, provider="redline"
)
