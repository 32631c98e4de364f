"""The sweeper's own part of the configuration."""

from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class MaxLRSweeperConf:
    """`hydra.sweeper.*`; the values are in conf/hydra/sweeper/max_lr.yaml."""

    _target_: str = "hydra_plugins.max_lr.sweeper.MaxLRSweeper"
    storage: str = MISSING
    workers: int | None = MISSING
    jobs: int | None = MISSING
    seeds: int = MISSING
    vote: str = MISSING
    doubt: float = MISSING
    scout_steps: int | None = MISSING
    dry_run: bool = MISSING
    tolerance: float = MISSING
    reference: str = MISSING
    retries: int = MISSING
    beat_every: float = MISSING
    patience: float = MISSING
    storage_patience: float = MISSING
    report_patience: float | None = MISSING


ConfigStore.instance().store(
    group="hydra/sweeper", name="max_lr_schema", node=MaxLRSweeperConf, provider="redline"
)
