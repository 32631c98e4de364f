"""Where a search's stores are, when nobody says."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

_CONF = Path(__file__).parents[3] / "conf"


@dataclass(frozen=True)
class Stores:
    """``tracking_uri`` None: nothing was tracked. ``searches`` holds a folder for each search."""

    storage: str
    tracking_uri: str | None
    searches: Path


def default_stores() -> Stores:
    """What a command without overrides uses; relative paths are those of the folder it is run in."""
    return Stores(_read("hydra/sweeper/max_lr").storage, default_tracking_uri(), Path("mlruns/searches"))


def default_tracking_uri() -> str:
    return _read("tracker/mlflow").tracking_uri


def default_reference() -> str:
    """The variant that the table's ratios are to."""
    return _read("hydra/sweeper/max_lr").reference


@cache
def _read(name: str) -> DictConfig:
    config = OmegaConf.load(_CONF / f"{name}.yaml")
    assert isinstance(config, DictConfig)
    return config
