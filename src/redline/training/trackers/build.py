"""From the configuration's trackers to loggers."""

from importlib.util import find_spec

from hydra.utils import instantiate
from omegaconf import DictConfig

from redline.errors import UserError
from redline.training.trackers.trackers import TrackedRun, Trackers

_STORES = ("http://", "https://", "sqlite://", "postgresql", "mysql", "mssql", "databricks")


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
        uri = spec.get("tracking_uri", _STORES[0])
        if not uri.startswith(_STORES):
            shown = uri.rpartition("@")[2]
            raise UserError(
                f"tracker.{name}.tracking_uri={shown}: allowed: sqlite:///PATH, "
                "postgresql://USER:PASSWORD@HOST/DATABASE or http://HOST:PORT"
            )


def build_trackers(trackers: DictConfig, run: TrackedRun) -> Trackers:
    """The chosen loggers, made for ``run``."""
    loggers = []
    for spec in trackers.values():
        settings = {str(key): value for key, value in spec.items() if key != "requires"}
        loggers.append(instantiate(settings, run=run))
    together = Trackers(loggers)
    together.set_tags(run.tags)  # also for a resumed run
    return together
