"""Turns taps on for the steps that are read, and hands what they saw to the logger."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from redline.errors import UserError
from redline.monitor.tap import Tap


class Monitor(Callback):
    """Reads every tap once every ``every`` steps, in one transfer from the device."""

    def __init__(self, taps: Mapping[str, Tap], every: int) -> None:
        if every < 1:
            raise UserError(f"monitor.every={every}: allowed: 1 or more steps")
        self.taps = list(taps.values())
        self.every = every

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            for tap in self.taps:
                tap.attach(list(module.model.blocks))  # type: ignore[union-attr, arg-type]

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every == 0:
            for tap in self.taps:
                tap.active = True

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        values = {}
        for tap in self.taps:
            if tap.active:
                values.update(tap.values)
                tap.values.clear()
                tap.active = False
        if values and trainer.logger is not None:
            numbers = torch.stack(list(values.values())).tolist()
            trainer.logger.log_metrics(dict(zip(values, numbers, strict=True)), trainer.global_step - 1)
