"""The taps of a run of Lightning's, and its loggers."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from redline.monitor.tap import Step, Tap
from redline.monitor.tapping import Tapping

Subscriber = Callable[[int, dict[str, float]], None]


class Monitor(Callback):
    """Reads taps: see `Tapping`.

    Metrics go to every logger of the trainer, arrays to those that have
    ``log_arrays(arrays: Mapping[str, numpy.ndarray], step: int)``. Batches are tokens (B, T+1).
    """

    def __init__(self, taps: Mapping[str, Tap], every: int) -> None:
        self.taps = dict(taps)
        self.every = every
        self._tapping = Tapping(self.taps, every, self._tell)
        self._subscribers: list[Subscriber] = []
        self._trainer: L.Trainer | None = None

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber(step, values)`` after each reading, one step late; values: name -> value."""
        self._subscribers.append(subscriber)

    def model_of(self, module: L.LightningModule) -> nn.Module:
        """What taps look at."""
        return module.model  # type: ignore[return-value]

    def tokens_in(self, batch: Any) -> int:
        """So many of a batch are predicted."""
        tokens_BS: Tensor = batch
        return tokens_BS[:, 1:].numel()

    @property
    def reading(self) -> bool:
        """Whether any tap reads the step in flight."""
        return self._tapping.reading

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._trainer = trainer
        self._tapping.attach(self.model_of(module))

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        micro_batches = trainer.accumulate_grad_batches
        if (batch_idx + 1) % micro_batches:
            return
        tokens = self.tokens_in(batch) * micro_batches * trainer.world_size
        self._tapping.begin(Step(trainer.global_step, tokens, trainer.optimizers[0]))

    def on_before_optimizer_step(self, *_: Any) -> None:
        self._tapping.before_update()

    def on_train_batch_end(self, *_: Any) -> None:
        self._tapping.end()

    def on_train_end(self, *_: Any) -> None:
        self._tapping.deliver()

    def on_exception(self, *_: Any) -> None:
        self._tapping.deliver()

    def state_dict(self) -> dict[str, Any]:
        # A checkpoint holds the step just read: a run resumed from it does not read that step again.
        self._tapping.deliver()
        return {}

    def _tell(self, step: int, values: dict[str, float], arrays: dict[str, np.ndarray]) -> None:
        assert self._trainer is not None
        for logger in self._trainer.loggers:
            if values:
                logger.log_metrics(values, step)
            if arrays and hasattr(logger, "log_arrays"):
                logger.log_arrays(arrays, step)
        for subscriber in self._subscribers:
            subscriber(step, values)
