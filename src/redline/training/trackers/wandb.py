"""Weights & Biases."""

import os
from pathlib import Path

from lightning.pytorch.loggers import WandbLogger

from redline.training.trackers.tracked_run import TrackedRun


class WandbRunLogger(WandbLogger):
    """Lightning's, but that a run's end is the end of wandb's: the next run of the process is another."""

    def __init__(self, *, run: TrackedRun, save_dir: str, offline: bool) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")  # a summary of forty lines a run
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        super().__init__(
            project=run.experiment, name=run.name, id=run.key, save_dir=save_dir, offline=offline
        )

    def end(self, status: str) -> None:
        self.experiment.finish(exit_code=0 if status == "FINISHED" else 1)
