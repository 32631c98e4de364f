"""The one checkpoint of a run, and what must be the same again after going on from it."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig

from redline.errors import UserError

CHECKPOINT = "last.ckpt"


class RunCheckpoint(ModelCheckpoint):
    """Overwrites ``last.ckpt`` every so many steps; remembers the tracker's run, to go on in it."""

    def __init__(self, directory: Path, every: int, run_id: str | None) -> None:
        super().__init__(
            dirpath=directory,
            filename=CHECKPOINT.removesuffix(".ckpt"),
            every_n_train_steps=every,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.run_id = run_id

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["run_id"] = self.run_id


class StepSeed(Callback):
    """Makes a step's randomness (dropout) depend on (seed, step) alone, as its batch does."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        # Not torch.manual_seed: it formats a traceback for every device there might be.
        seed = self.seed * 1_000_003 + trainer.global_step
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(seed)


def checkpoint_to_resume(cfg: DictConfig, directory: Path) -> Path | None:
    """The checkpoint that ``trainer.resume`` names, or one that a killed run left in ``directory``.

    Raises UserError where the named one is missing.
    """
    if cfg.trainer.resume is None:
        path = directory / CHECKPOINT
        return path if path.is_file() else None
    path = Path(cfg.trainer.resume)
    if not path.is_file():
        raise UserError(f"trainer.resume={path}: no such file; allowed: the path of a checkpoint")
    return path
