"""Lightning's own loggers, each run in a folder named after it."""

from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from redline.training.trackers.tracked_run import TrackedRun


def csv(*, run: TrackedRun, save_dir: str, flush_every: int) -> CSVLogger:
    """``flush_every``: steps. A run that is gone on with begins another ``version_N`` in its folder."""
    folder = Path(save_dir) / run.experiment
    return CSVLogger(folder, name=_folder_name(run), flush_logs_every_n_steps=flush_every)


def tensorboard(*, run: TrackedRun, save_dir: str) -> TensorBoardLogger:
    folder = Path(save_dir) / run.experiment
    return TensorBoardLogger(folder, name=_folder_name(run), version="", default_hp_metric=False)


def _folder_name(run: TrackedRun) -> str:
    return f"{run.name} {run.key}".replace("/", "-")
