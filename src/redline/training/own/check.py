"""What can be found wrong with a LightningModule of the user's own before a run."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from redline.errors import UserError
from redline.monitor import build_monitor
from redline.parts import told
from redline.stability import build_forecaster, build_rules
from redline.training.environment import quieten
from redline.training.own.build import build_data, build_module, precision_of
from redline.training.own.keys import check_keys
from redline.training.own.run import AnyMonitor, score_of, trainer_for
from redline.training.trackers import check_trackers

_STEPS = 2


class _SeesLoss(Callback):
    seen = False

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen |= (outputs.get("loss") if isinstance(outputs, dict) else outputs) is not None


def check(cfg: DictConfig) -> None:
    """Raise UserError for a run that cannot work: the module takes two steps on its own data, and its
    validation logs the score.
    """
    check_keys(cfg)
    precision = precision_of(cfg)
    build_rules(cfg.divergence, object)
    check_trackers(cfg.tracker)
    build_forecaster(cfg.divergence)
    quieten()
    module, data = build_module(cfg), build_data(cfg)
    monitor, loss = build_monitor(cfg.monitor, AnyMonitor), _SeesLoss()
    for tap in monitor.taps.values():
        tap.every = 1
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # of Lightning: this is no run
        trainer = trainer_for(
            cfg,
            precision,
            [monitor, loss],
            False,
            Path(folder),
            fast_dev_run=_STEPS,
            enable_checkpointing=False,
        )
        try:
            trainer.fit(module, datamodule=data)
        except UserError:
            raise
        # Whatever the user's own raises.
        except Exception as error:
            raise UserError(f"task.module: {told(error)}") from error
    if not loss.seen:
        raise UserError(
            "task.module: training_step returns no loss; allowed: the loss, or a dict that has it"
        )
    score_of(cfg, trainer)
