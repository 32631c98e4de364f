"""The callback that logs every step and reports it to the trial, which says when to stop."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from redline import metrics
from redline.monitor.late_reader import LateReader
from redline.search import Trial
from redline.training.module import LanguageModel
from redline.training.trackers import Trackers


class Report(Callback):
    """Reports a step once its numbers are on the host, one step late. Checkpoints hold the trial's state."""

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
        self._names = [metrics.TRAIN_LOSS, metrics.GRAD_NORM, *map(metrics.loss_term, module.addends)]
        scalars = [module.loss, module.grad_norm, *module.addends.values()]
        if module.clipped_heads is not None:
            self._names.append(metrics.CLIPPED_HEADS)
            scalars.append(module.clipped_heads)
        self._report(trainer, self.reader.push(trainer.global_step - 1, scalars))

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._report(trainer, self.reader.flush())

    def _report(self, trainer: L.Trainer, ready: tuple[int, list[float]] | None) -> None:
        if ready is None or self.trial.watch.verdict is not None:
            return
        step, numbers = ready
        for logger in trainer.loggers:
            logger.log_metrics(dict(zip(self._names, numbers, strict=True)), step)
        if self.trackers.page is not None:
            self.trial.link(self.trackers.page)
        loss, grad_norm, *_ = numbers
        trainer.should_stop = self.trial.report(step, loss, grad_norm)

    def state_dict(self) -> dict[str, Any]:
        # A checkpoint holds the step just taken, so its numbers must be judged by now.
        if self._trainer is not None:
            self._report(self._trainer, self.reader.flush())
        return self.trial.watch.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.trial.watch.load_state_dict(state_dict)
