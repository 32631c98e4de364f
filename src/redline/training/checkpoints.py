"""The one checkpoint of a run, and what must be the same again after going on from it."""

import hashlib
import logging
from pathlib import Path
from typing import IO, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf import DictConfig

from redline.errors import UserError
from redline.files import atomic_write

CHECKPOINT = "last.ckpt"
_DIGEST_SIZE = 16  # bytes
_PART = 1 << 24  # bytes that are read at a time

log = logging.getLogger(__name__)


class RunCheckpoint(ModelCheckpoint):
    """Overwrites ``last.ckpt`` every so many steps; remembers the run's key, to go on in it."""

    def __init__(self, directory: Path, every: int, run_key: str) -> None:
        super().__init__(
            dirpath=directory,
            filename=CHECKPOINT.removesuffix(".ckpt"),
            every_n_train_steps=every,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.run_key = run_key

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["run_key"] = self.run_key


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's own writes below /tmp and moves the file, which from another file system is a copy: a kill
    or a full disk leaves half of it. Loading looks at no checksum, so a digest of the whole follows it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        for killed in path.parent.glob(f"{path.name}.*.tmp"):
            killed.unlink(missing_ok=True)
        with atomic_write(path) as file:
            hashing = _Hashing(file)
            torch.save(checkpoint, hashing)  # type: ignore[arg-type]
            file.write(hashing.digest.digest())


class _Hashing:
    """A file that is written to from its beginning to its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, _new_digest()

    def write(self, part: bytes) -> int:
        self.digest.update(part)
        return self.file.write(part)

    def flush(self) -> None:
        self.file.flush()


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

    A damaged one in ``directory`` counts as none. Raises UserError where the named one is missing or damaged.
    """
    if cfg.trainer.resume is None:
        path = directory / CHECKPOINT
        if path.is_file() and not _is_whole(path):
            log.warning("%s: damaged; the run begins anew", path)
            return None
        return path if path.is_file() else None
    check_resume(cfg)
    path = Path(cfg.trainer.resume)
    if not _is_whole(path):
        raise UserError(f"trainer.resume={path}: damaged; allowed: a checkpoint as it was written")
    return path


def check_resume(cfg: DictConfig) -> None:
    """Raise UserError where ``trainer.resume`` names no file. Whether it is whole, its reader finds out."""
    path = cfg.trainer.resume
    if path is not None and not Path(path).is_file():
        raise UserError(f"trainer.resume={path}: no such file; allowed: the path of a checkpoint")


def _is_whole(path: Path) -> bool:
    digest, left = _new_digest(), path.stat().st_size - _DIGEST_SIZE
    with path.open("rb") as file:
        while left > 0:
            part = file.read(min(left, _PART))
            digest.update(part)
            left -= len(part)
        return digest.digest() == file.read()


def _new_digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=_DIGEST_SIZE)
