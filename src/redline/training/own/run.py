"""One training run of a LightningModule of the user's own."""

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor, nn

from redline import metrics
from redline.errors import UserError
from redline.monitor import Monitor, build_monitor
from redline.search import Score, Trial
from redline.training.build import device_of
from redline.training.checkpoints import (
    AtomicCheckpointIO,
    RunCheckpoint,
    RunState,
    StepSeed,
    checkpoint_to_resume,
)
from redline.training.own.build import (
    GROUPS,
    build_data,
    build_module,
    module_part,
    precision_of,
    trainer_arguments,
)
from redline.training.own.data import replay
from redline.training.own.learning_rate import ScaledLR
from redline.training.precision import precision_plugin
from redline.training.reporting import Report, interventions
from redline.training.settings import deciding_settings
from redline.training.tracked import conclude, prepare_process, tracked
from redline.training.trackers import Trackers, new_run_key

log = logging.getLogger(__name__)


def run(cfg: DictConfig, trial: Trial) -> Score:
    """As `redline.training.run`: ``cfg`` has passed the task's check."""
    prepare_process(cfg)
    checkpoint = checkpoint_to_resume(cfg, trial.directory)
    precision = checkpoint.run.precision if checkpoint else precision_of(cfg)
    key = checkpoint.run.key if checkpoint else new_run_key()
    with tracked(cfg, trial, key, precision) as trackers:
        module, data = build_module(cfg), build_data(cfg)
        untrained = Untrained(None)
        state = RunState(trackers.run_key or key, precision, False, deciding_settings(cfg))
        trainer = trainer_for(
            cfg,
            precision,
            [
                build_monitor(cfg.monitor, AnyMonitor),
                untrained,
                OwnReport(trial, trackers),
                StepSeed(cfg.seed),
                OwnCheckpoint(trial.directory, cfg.trainer.checkpoint_every, state, trial),
            ],
            trackers.loggers,
            trial.directory,
        )
        if checkpoint is None and cfg.task.floor is None:
            untrained.score = _score(cfg, trainer, module, data)
        replay(module if data is None else data, cfg.seed, trainer)
        trainer.fit(
            module, datamodule=data, ckpt_path=checkpoint.path if checkpoint else None, weights_only=True
        )
        counts = {name: int(count) for name, count in interventions(trainer, module).items()}
        score = Score(None, _floor(cfg, untrained), steps=trainer.global_step, interventions=counts)
        if trial.watch.final_verdict() is None and not trial.cancelled:
            found = _score(cfg, trainer, module, data)
            score = replace(score, loss=_turned(cfg, found), numbers={cfg.task.score: found})
    return conclude(cfg, trial, trackers, trainer, score)


def trainer_for(
    cfg: DictConfig, precision: str, callbacks: list[Callback], loggers: Any, directory: Path, **more: Any
) -> L.Trainer:
    """With the user's own arguments; its callbacks come first, as they would without ours."""
    device, own = device_of(cfg), trainer_arguments(cfg)
    theirs = own.pop("callbacks", None) or []
    scaled = [ScaledLR(cfg.lr)] if module_part(cfg)[1] == GROUPS else []
    arguments = {
        "accelerator": device.type.replace("cuda", "gpu"),
        "devices": 1,
        "accumulate_grad_batches": cfg.trainer.accumulate,
        "max_steps": cfg.trainer.max_steps,
        "max_epochs": -1,
        "logger": loggers,
        "callbacks": [*theirs, *scaled, *callbacks],
        "plugins": [AtomicCheckpointIO(), precision_plugin(precision, device)],
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": directory,
    }
    return L.Trainer(**{**arguments, **own, **more})


def _score(
    cfg: DictConfig, trainer: L.Trainer, module: L.LightningModule, data: L.LightningDataModule | None
) -> float:
    """What validation logs by the name that the settings say."""
    trainer.validate(module, datamodule=data, verbose=False)
    return score_of(cfg, trainer)


def score_of(cfg: DictConfig, trainer: L.Trainer) -> float:
    """Raises UserError where validation has logged none."""
    found = trainer.callback_metrics
    if cfg.task.score not in found:
        raise UserError(
            f"task.score={cfg.task.score}: validation_step logs no such number; allowed: "
            + (", ".join(sorted(found)) or "what it logs by self.log(…)")
        )
    return float(found[cfg.task.score])


def _turned(cfg: DictConfig, score: float) -> float:
    """Smaller is better."""
    return -score if cfg.task.mode == "max" else score


def _floor(cfg: DictConfig, untrained: "Untrained") -> float | None:
    score = cfg.task.floor if untrained.score is None else untrained.score
    return None if score is None or not math.isfinite(score) else _turned(cfg, score)


class Untrained(Callback):
    """Remembers the module's score before its first step, in checkpoints too."""

    def __init__(self, score: float | None) -> None:
        self.score = score

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score = state_dict["score"]


class AnyMonitor(Monitor):
    """Its taps look at all of the module, whose batches may be anything."""

    def model_of(self, module: L.LightningModule) -> nn.Module:
        return module

    def tokens_in(self, batch: Any) -> int:
        return 0


class OwnReport(Report):
    """Reports the loss that ``training_step`` returns, its mean over a step's micro-batches, and the global
    L2 norm of the gradients before anything is done to them.
    """

    def __init__(self, trial: Trial, trackers: Trackers) -> None:
        super().__init__(trial, trackers)
        self.loss: Tensor | None = None
        self.grad_norm = torch.zeros(())
        self.steps = 0  # reported

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        super().on_train_start(trainer, module)
        self.steps = trainer.global_step

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Any) -> None:
        gradients = [its.grad for its in module.parameters() if its.grad is not None]
        self.grad_norm = torch.nn.utils.get_total_norm(gradients)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:  # of a micro-batch, its share of the mean
            self.loss = loss.detach() if self.loss is None else self.loss + loss.detach()
        if trainer.global_step == self.steps or self.loss is None:
            return
        self.steps = trainer.global_step
        self.push(trainer, module, {metrics.TRAIN_LOSS: self.loss, metrics.GRAD_NORM: self.grad_norm})
        self.loss = None


class OwnCheckpoint(RunCheckpoint):
    """Without what `save_hyperparameters` keeps, which may be objects: a run makes them anew."""

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        for name in [its for its in checkpoint if "hparams" in its or "hyper_parameters" in its]:
            del checkpoint[name]
