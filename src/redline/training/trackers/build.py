"""From the configuration's trackers to loggers."""

from importlib.util import find_spec
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from redline.errors import UserError
from redline.files import check_writable
from redline.stores import check_tracking_uri
from redline.training.trackers.trackers import TrackedRun, Trackers


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
        for key in ("save_dir", "outbox"):
            if key in spec:
                check_writable(spec[key], f"tracker.{name}.{key}")
        if "tracking_uri" in spec:
            home = Path(spec["outbox"]).parent if "outbox" in spec else None
            check_tracking_uri(str(spec["tracking_uri"]), f"tracker.{name}.tracking_uri", home)


def build_trackers(trackers: DictConfig, run: TrackedRun) -> Trackers:
    """The chosen loggers, made for ``run``."""
    loggers = []
    for spec in trackers.values():
        settings = {str(key): value for key, value in spec.items() if key != "requires"}
        loggers.append(instantiate(settings, run=run))
    together = Trackers(loggers)
    together.set_tags(run.tags)  # also for a resumed run
    return together
