"""Lightning's own loggers, made for a run."""

import os
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from redline.bounds import Count
from redline.training.trackers.trackers import TrackedRun


def csv(*, run: TrackedRun, save_dir: str, flush_every: Count) -> CSVLogger:
    """``flush_every``: steps. A run that is resumed begins another ``version_N`` in its folder."""
    folder = Path(save_dir) / run.experiment
    return CSVLogger(folder, name=_folder_name(run), flush_logs_every_n_steps=flush_every)


def tensorboard(*, run: TrackedRun, save_dir: str) -> TensorBoardLogger:
    folder = Path(save_dir) / run.experiment
    return TensorBoardLogger(folder, name=_folder_name(run), version="", default_hp_metric=False)


class WandbRunLogger(WandbLogger):
    """Ends wandb's run with ours: the next run of the process is another."""

    def __init__(self, *, run: TrackedRun, save_dir: str, offline: bool) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")  # a summary of forty lines a run
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        super().__init__(
            project=run.experiment, name=run.name, id=run.key, save_dir=save_dir, offline=offline
        )

    def end(self, status: str) -> None:
        self.experiment.finish(exit_code=0 if status == "FINISHED" else 1)


def _folder_name(run: TrackedRun) -> str:
    return f"{run.name} {run.key}".replace("/", "-")
