"""Turns taps on for the steps that are read, and passes their values to the loggers."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from redline.monitor.late_reader import LateReader
from redline.monitor.reading import Reading
from redline.monitor.tap import Step, Tap

Subscriber = Callable[[int, dict[str, float]], None]


class Monitor(Callback):
    """Reads each tap every ``every`` steps, or every so many as the tap says: one transfer from the device
    for all of them, looked at one step late.

    Metrics go to every logger of the trainer, arrays to those that have
    ``log_arrays(arrays: Mapping[str, numpy.ndarray], step: int)``. Batches are tokens (B, T+1).
    """

    def __init__(self, taps: Mapping[str, Tap], every: int) -> None:
        self.taps = dict(taps)
        self.every = every
        self._due: list[Tap] = []  # of the step in flight
        self._step: Step | None = None
        self._reading: Reading | None = None
        self._reader = LateReader()
        self._subscribers: list[Subscriber] = []
        self._trainer: L.Trainer | None = None

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber(step, values)`` after each reading, one step late; values: name -> value."""
        self._subscribers.append(subscriber)

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._trainer = trainer
        for tap in self.taps.values():
            tap.attach(module.model)  # type: ignore[arg-type]

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Tensor, batch_idx: int
    ) -> None:
        micro_batches = trainer.accumulate_grad_batches
        if (batch_idx + 1) % micro_batches:
            return  # of a step's micro-batches the last is looked at: its gradients are the step's
        number = trainer.global_step
        self._due = [tap for tap in self.taps.values() if number % (tap.every or self.every) == 0]
        if self._due:
            tokens = batch[:, 1:].numel() * micro_batches * trainer.world_size
            self._step = Step(number, tokens, trainer.optimizers[0])
        for tap in self._due:
            tap.active = True

    @torch.no_grad()
    def on_before_optimizer_step(self, *_: Any) -> None:
        for tap in self._due:
            assert self._step is not None
            tap.before_update(self._step)

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        self._deliver()
        if self._due:
            assert self._step is not None
            for tap in self._due:
                tap.after_update(self._step)
                tap.active = False
            self._reading = Reading(self._due)
            self._reader.push(self._step.number, self._reading.tensors)
            self._due = []

    def on_train_end(self, *_: Any) -> None:
        self._deliver()

    def on_exception(self, *_: Any) -> None:
        self._deliver()

    def state_dict(self) -> dict[str, Any]:
        # A checkpoint holds the step just read: a run resumed from it does not read that step again.
        self._deliver()
        return {}

    def _deliver(self) -> None:
        ready = self._reader.flush()
        if ready is None:
            return
        assert self._reading is not None
        assert self._trainer is not None
        step, numbers = ready
        values, arrays = self._reading.unpack(numbers)
        for logger in self._trainer.loggers:
            if values:
                logger.log_metrics(values, step)
            if arrays and hasattr(logger, "log_arrays"):
                logger.log_arrays(arrays, step)
        for subscriber in self._subscribers:
            subscriber(step, values)
