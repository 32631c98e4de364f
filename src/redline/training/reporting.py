"""The callback that logs every step and reports it to the trial, which says when to stop."""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from redline import metrics, over_ranks
from redline.monitor.late_reader import LateReader
from redline.search import Trial
from redline.training.module import LanguageModel
from redline.training.precision import Fp16Precision, LossScaler
from redline.training.trackers import Trackers

_SCALER = "fp16_scaler"  # the name of its skips
_SKIPPED = "skipped"  # by it
_CANCELLED = "cancelled"


class Report(Callback):
    """Reports a step once its numbers are on the host, one step late. Checkpoints hold the trial's state.

    A step that the loss scaler of fp16 skips has no gradient norm: its gradients overflowed because of the
    scale. Where the scale is 1 or less they did so by themselves, and the norm is infinite.
    """

    def __init__(self, trial: Trial, trackers: Trackers) -> None:
        self.trial, self.trackers = trial, trackers
        self.reader = LateReader()
        self._names: list[str] = []  # of what is read: the same at every step
        self._trainer: L.Trainer | None = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._trainer = trainer
        trainer.should_stop = self.trial.watch.verdict is not None

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, module: LanguageModel, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        scalars = {metrics.TRAIN_LOSS: module.loss, metrics.GRAD_NORM: module.grad_norm}
        scalars |= {metrics.loss_term(name): addend for name, addend in module.addends.items()}
        if module.clipped_heads is not None:
            scalars[metrics.CLIPPED_HEADS] = module.clipped_heads
        self.push(trainer, module, scalars)

    def push(self, trainer: L.Trainer, module: L.LightningModule, scalars: dict[str, Tensor]) -> None:
        """Log and report the step just taken once it is read; ``scalars`` has its loss and gradient norm."""
        for name, count in interventions(trainer, module).items():
            scalars[metrics.intervention(name)] = count
        if (scaler := _scaler(trainer)) is not None:
            scalars |= {metrics.LOSS_SCALE: scaler.scale_used, _SKIPPED: scaler.skipped}
        if trainer.world_size > 1:
            # One rank may know of it before the others: all stop once all have read it.
            cancelled = torch.tensor(float(self.trial.cancelled), device=module.device)
            scalars[_CANCELLED] = over_ranks.largest(cancelled)
        self._names = list(scalars)
        self._report(trainer, self.reader.push(trainer.global_step - 1, list(scalars.values())))

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._report(trainer, self.reader.flush())

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        # No step follows, after which a cancelled trial would end.
        if self.trial.cancelled:
            raise SIGTERMException

    def _report(self, trainer: L.Trainer, ready: tuple[int, list[float]] | None) -> None:
        if ready is None or self.trial.watch.verdict is not None:
            return
        step, numbers = ready
        values = dict(zip(self._names, numbers, strict=True))
        cancelled = values.pop(_CANCELLED, None)
        if values.pop(_SKIPPED, 0.0):
            del values[metrics.GRAD_NORM]
            if values[metrics.LOSS_SCALE] <= 1:
                values[metrics.GRAD_NORM] = math.inf
        for logger in trainer.loggers:
            logger.log_metrics(values, step)
        if self.trackers.page is not None:
            self.trial.link(self.trackers.page)
        loss, grad_norm = values[metrics.TRAIN_LOSS], values.get(metrics.GRAD_NORM)
        stop = self.trial.report(step, loss, grad_norm)
        if cancelled is not None:
            stop = self.trial.watch.verdict is not None or bool(cancelled)
            self.trial.watch.cancelled |= bool(cancelled)
        trainer.should_stop = stop

    def state_dict(self) -> dict[str, Any]:
        # A checkpoint holds the step just taken, so its numbers must be judged by now.
        if self._trainer is not None:
            self._report(self._trainer, self.reader.flush())
        return self.trial.watch.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.trial.watch.load_state_dict(state_dict)


def interventions(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Tensor]:
    """So many steps so far were changed by each thing that can hide divergence, by its name."""
    scaler = _scaler(trainer)
    ours = module.gradient.counts if isinstance(module, LanguageModel) else {}
    return ours | ({} if scaler is None else {_SCALER: scaler.skips})


def _scaler(trainer: L.Trainer) -> LossScaler | None:
    plugin = trainer.precision_plugin
    return plugin.scaler if isinstance(plugin, Fp16Precision) else None
