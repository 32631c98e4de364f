"""What can be found wrong with a configuration before any training."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from redline.errors import UserError
from redline.stability import build_forecaster, build_rules
from redline.training.build import build_model, build_monitor, build_schedule, device_of
from redline.training.checkpoints import check_resume
from redline.training.precision import check_precision
from redline.training.trackers import check_trackers


def check(cfg: DictConfig) -> None:
    """Raise UserError for a run that cannot work; costs milliseconds and no memory for weights."""
    if not 0 < cfg.lr < math.inf:
        raise UserError(f"lr={cfg.lr}: allowed: a number above 0")
    _at_least(cfg, 1, ["trainer.max_steps", "trainer.checkpoint_every", "model.width", "model.num_layers"])
    _at_least(cfg, 1, ["model.num_heads", "model.mlp_ratio"])
    _at_least(cfg, 1, ["data.sequence_length", "data.batch_size", "data.val_batches"])
    _at_least(cfg, 0, ["seed", "schedule.warmup_steps"])
    if not 0 <= cfg.model.dropout < 1:
        raise UserError(f"model.dropout={cfg.model.dropout}: allowed: from 0 to below 1")
    if cfg.trainer.grad_clip is not None and not cfg.trainer.grad_clip > 0:
        raise UserError(f"trainer.grad_clip={cfg.trainer.grad_clip}: allowed: a number above 0, or null")
    check_precision(cfg.trainer.precision.value, device_of(cfg), cfg.trainer.allow_emulated_bf16)
    build_rules(cfg.divergence, object)
    check_trackers(cfg.tracker)
    check_resume(cfg)
    mode, _ = build_forecaster(cfg.divergence)
    if not build_monitor(cfg).taps and mode == "end":
        raise UserError("divergence.forecast=end: the monitor reads nothing; allowed: warn, off, or taps")
    with torch.device("meta"):
        build_model(cfg)
    _can_be_called("schedule", lambda: build_schedule(cfg)(0))
    some = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))]
    _can_be_called("optimizer", lambda: instantiate(cfg.optimizer)(some, cfg.lr))


def _can_be_called(group: str, call: Callable[[], Any]) -> None:
    try:
        call()
    # Python's words for an argument that there is not, torch's for a number out of range.
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{group}: {error}; allowed: what conf/{group}/ shows") from error


def _at_least(cfg: DictConfig, least: int, keys: Sequence[str]) -> None:
    for key in keys:
        group, _, name = key.rpartition(".")
        value = (cfg[group] if group else cfg)[name]
        if value < least:
            raise UserError(f"{key}={value}: allowed: {least} or more")
