"""The sweeper's own part of the configuration: the engine's options, and what only a command line has."""

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any, get_type_hints

from annotated_types import Ge, Gt, Le
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from redline.bounds import check_value
from redline.search.options import Options


@dataclass
class CommandLine:
    """The values are in conf/hydra/sweeper/max_lr.yaml."""

    _target_: str = "hydra_plugins.max_lr.sweeper.MaxLRSweeper"
    jobs: Annotated[int, Ge(1), Le(10_000)] | None = MISSING
    dry_run: bool = MISSING
    tolerance: Annotated[float, Gt(0), Le(100)] = MISSING
    params: dict[str, str] = field(default_factory=dict)


# Hydra fills the schema field by field, so it cannot use the frozen class itself.
_OPTIONS = [(option.name, option.type, field(default=MISSING)) for option in fields(Options)]
MaxLRSweeperConf = make_dataclass("MaxLRSweeperConf", _OPTIONS, bases=(CommandLine,))


def split_settings(settings: dict[str, Any]) -> tuple[Options, CommandLine]:
    """The engine's options, and the rest. Raises UserError for what is wrong in the rest."""
    names = {option.name for option in fields(Options)}
    told = {name: value for name, value in settings.items() if name in names}
    if OmegaConf.is_config(told["prior"]):
        told["prior"] = OmegaConf.to_container(told["prior"], resolve=True)  # it becomes part of JSON
    options = Options(**told)
    rest = {name: value for name, value in settings.items() if name not in names}
    for name, annotation in get_type_hints(CommandLine, include_extras=True).items():
        if name in rest:
            check_value(f"hydra.sweeper.{name}", rest[name], annotation)
    return options, CommandLine(**rest)


ConfigStore.instance().store(
    group="hydra/sweeper", name="max_lr_schema", node=MaxLRSweeperConf, provider="redline"
)
