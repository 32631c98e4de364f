"""From the configuration's trackers to loggers."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from redline.errors import UserError
from redline.files import check_writable
from redline.parts import Kind, find_part, returns
from redline.stores import check_tracking_uri
from redline.training.trackers.trackers import TrackedRun, Trackers

_TRACKER = Kind("a Lightning logger, or a function that returns one", returns(Logger), named=("run",))


def check_trackers(trackers: DictConfig) -> None:
    """Raises UserError for a tracker whose package is missing or whose address is none."""
    for key, spec in trackers.items():
        name = str(key)
        if "_target_" not in spec:
            raise UserError(f"tracker.{name}: unknown; choose trackers as in tracker=[mlflow,csv]")
        package = spec.get("requires")
        if package is not None and find_spec(package) is None:
            raise UserError(
                f"tracker={name}: needs the package {package}, which is not installed; "
                f"install it with pip install 'redline[{name}]'"
            )
        _found(name, spec)
        for key in ("save_dir", "outbox"):
            if key in spec:
                check_writable(spec[key], f"tracker.{name}.{key}")
        if "tracking_uri" in spec:
            home = Path(spec["outbox"]).parent if "outbox" in spec else None
            check_tracking_uri(str(spec["tracking_uri"]), f"tracker.{name}.tracking_uri", home)


def _found(name: str, spec: DictConfig) -> Callable[..., Logger]:
    arguments = {str(key): value for key, value in spec.items() if key != "requires"}
    return find_part(f"tracker.{name}", arguments, _TRACKER)


def build_trackers(trackers: Mapping[Any, Any], run: TrackedRun) -> Trackers:
    """The chosen loggers, made for ``run``."""
    together = Trackers([_found(str(name), spec)(run=run) for name, spec in trackers.items()])
    together.set_tags(run.tags)  # also for a resumed run
    return together
