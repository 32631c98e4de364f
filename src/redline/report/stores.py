"""Where a search's stores are, when nobody says."""

from dataclasses import dataclass
from pathlib import Path

from redline.config import shipped


@dataclass(frozen=True)
class Stores:
    """``tracking_uri`` None: nothing was tracked. ``searches`` holds a folder for each search."""

    storage: str
    tracking_uri: str | None
    searches: Path


def default_stores() -> Stores:
    """What a command without overrides uses; relative paths are those of the folder it is run in."""
    tracking_uri = shipped("tracker/mlflow").tracking_uri
    return Stores(shipped("hydra/sweeper/max_lr").storage, tracking_uri, Path("mlruns/searches"))


def default_reference() -> str:
    """The variant that the table's ratios are to."""
    return shipped("hydra/sweeper/max_lr").reference
