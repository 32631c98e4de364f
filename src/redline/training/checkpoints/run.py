"""The one checkpoint of a run, and what must be the same again after going on from it."""

import copy
import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig

from redline.bounds import shown
from redline.errors import UserError
from redline.search import Trial
from redline.training.checkpoints.io import is_whole, read_plain
from redline.training.schedules import build_schedule
from redline.training.settings import deciding_settings

CHECKPOINT = "last.ckpt"
_RUN, _STEPS = "redline", "trainer.max_steps"
_MOST_NAMED = 5  # differences in a message

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunState:
    """``key``: the tracked run's; ``settings``: those that decide the outcome, and ``lr`` and ``seed``."""

    key: str
    precision: str
    compiled: bool
    settings: Mapping[str, Any]


class RunCheckpoint(ModelCheckpoint):
    """Overwrites ``last.ckpt`` every so many steps, and when the trial is cancelled, since a cluster that
    preempts a job lets it go on elsewhere; remembers ``run``, what a run that goes on must know.
    """

    def __init__(self, directory: Path, every: int, run: RunState, trial: Trial) -> None:
        super().__init__(
            dirpath=directory,
            filename=CHECKPOINT.removesuffix(".ckpt"),
            every_n_train_steps=every,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.run, self.trial = run, trial

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Between two micro-batches a step is half done.
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        # Not `trial.cancelled`, which one rank may know of before the others.
        cancelled = trainer.should_stop and self.trial.watch.verdict is None
        if cancelled and self._last_global_step_saved != trainer.global_step:
            assert self.dirpath is not None
            trainer.save_checkpoint(Path(self.dirpath) / CHECKPOINT)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[_RUN] = asdict(self.run)


class StepSeed(Callback):
    """Makes a batch's randomness (dropout) depend on (seed, step, micro-step, rank) alone, as tokens do."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        micro_step = batch_idx % trainer.accumulate_grad_batches
        # Not torch.manual_seed: it formats a traceback for every device there might be.
        seed = (trainer.global_rank * 1_000_003 + micro_step) * 1_000_003 + self.seed
        seed = (seed * 1_000_003 + trainer.global_step) % 2**63
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(seed)


@dataclass(frozen=True)
class Checkpoint:
    """One that a run may go on from. ``step``: optimizer steps that it holds."""

    path: Path
    step: int
    run: RunState


def checkpoint_to_resume(cfg: DictConfig, directory: Path) -> Checkpoint | None:
    """The checkpoint that ``trainer.resume`` names, or one that a killed run left in ``directory``.

    A damaged one in ``directory`` counts as none. Raises UserError where the named one is missing or damaged,
    and where the run would not be the same.
    """
    named = cfg.trainer.resume
    path = directory / CHECKPOINT if named is None else Path(named)
    if named is None and not path.exists():
        return None
    if not is_whole(path):
        if named is not None:
            raise UserError(f"trainer.resume={path}: damaged; allowed: a checkpoint as it was written")
        log.warning("%s: damaged; the run begins anew", path)
        return None
    return _same_run(path, cfg, directory)


def check_resume(cfg: DictConfig, directory: Path | None = None) -> None:
    """Raise UserError where ``trainer.resume`` names no checkpoint of this run, or ``directory`` holds that
    of another or of a finished one. Whether the named one is whole is not looked at.
    """
    if (named := cfg.trainer.resume) is not None:
        if not Path(named).exists():
            raise UserError(f"trainer.resume={named}: no such file; allowed: the path of a checkpoint")
        _same_run(Path(named), cfg, directory)
    elif directory is not None and (path := directory / CHECKPOINT).is_file() and is_whole(path):
        found = _same_run(path, cfg, directory)
        if found.step >= found.run.settings["trainer"]["max_steps"]:
            raise UserError(
                f"hydra.run.dir={directory}: holds a finished run; allowed: another folder, or "
                f"trainer.resume={path} to go on from it"
            )


def _same_run(path: Path, cfg: DictConfig, directory: Path | None) -> Checkpoint:
    """Raises UserError where ``path`` is no checkpoint of a run with these settings."""
    asked = f"hydra.run.dir={directory}" if cfg.trainer.resume is None else f"trainer.resume={path}"
    try:
        state = read_plain(path)
        found = Checkpoint(path, state["global_step"], RunState(**state[_RUN]))
    # torch.load raises whatever zip files and its unpickler do; the rest is of a file with other content.
    except (
        RuntimeError,
        pickle.UnpicklingError,
        AssertionError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
    ) as error:
        raise UserError(
            f"{asked}: not a checkpoint of a run, or it holds more than weights and plain values; allowed: a "
            f"{CHECKPOINT} that Redline wrote"
        ) from error
    before, now = _flat(found.run.settings), _flat(deciding_settings(cfg))
    steps = before.pop(_STEPS), now.pop(_STEPS)
    different = [
        f"{key}: {shown(before.get(key))} in the checkpoint, {shown(now.get(key))} asked"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if steps[0] != steps[1] and not _may_change(steps, found.step, cfg):
        different.append(f"{_STEPS}: {steps[0]} in the checkpoint, {steps[1]} asked")
    if different:
        more = f"; steps may be added where the first {found.step} keep their LR, as with schedule=constant"
        raise UserError(
            f"{asked}: of another run ({_few(different)}); allowed: the same settings, or another folder"
            + more * different[-1].startswith(_STEPS)
        )
    return found


def _few(differences: Sequence[str]) -> str:
    more = len(differences) - _MOST_NAMED
    return "; ".join(differences[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _may_change(steps: tuple[int, int], done: int, cfg: DictConfig) -> bool:
    """Whether a run of so many steps now is, in the steps ``done``, what it was."""
    if not cfg.schedule:  # a user's module has its own, which may know the run's length
        return False
    asked = copy.deepcopy(cfg)
    asked.trainer.max_steps = steps[0]
    before, now = build_schedule(asked), build_schedule(cfg)
    return steps[1] >= done and all(before(step) == now(step) for step in range(done))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """With keys as a command line has them."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
