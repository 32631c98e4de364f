"""What can be found wrong with a configuration before any training."""

import copy
import os
import traceback
import warnings
from pathlib import Path

import lightning as L
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from redline.bounds import shown
from redline.config import check_settings
from redline.data import build_corpus
from redline.errors import UserError
from redline.model import SITES, named_parameters
from redline.monitor import Monitor
from redline.parts import told
from redline.stability import build_forecaster, build_rules
from redline.training.build import (
    build_model,
    build_module,
    build_monitor,
    check_devices,
    device_of,
    micro_batch_size,
    small_model,
)
from redline.training.checkpoints import check_resume
from redline.training.compilation import compiles
from redline.training.environment import quieten
from redline.training.module import LanguageModel
from redline.training.optimizers import check_patterns
from redline.training.precision import check_fp8, check_precision
from redline.training.schedules import build_schedule
from redline.training.strategies import FullyShard, check_shards, environment_of, ranks, strategy_of
from redline.training.trackers import check_trackers

_PER_PARAMETER = 4  # numbers: the weight, its gradient and Adam's two means
_MOST_TRAINED = 50_000_000  # parameters of one block, above which the tiny run is left out
_SCHEDULE_POINTS = 10_000
_SHAPE = ("type", "config", "path", "width", "num_layers", "vocab_size")  # of what a model may have
_TINY_BATCH = 2  # sequences


def check(cfg: DictConfig, directory: Path | None = None) -> None:
    """Raise UserError for a run that cannot work: what `check_parts` finds, and one block of the model takes
    two steps on the CPU. ``directory``: where the run is to be. Takes about a second.
    """
    check_parts(cfg)
    _train_tiny(cfg)
    check_resume(cfg, directory)


def check_parts(cfg: DictConfig) -> None:
    """Raise UserError for a setting out of bounds, and for what cannot be built of them."""
    check_settings(cfg)
    check_devices(cfg)
    check_precision(cfg.trainer.precision.value, device_of(cfg), cfg.trainer.allow_emulated)
    micro_batch_size(cfg)
    if cfg.sites and "sites" not in cfg.model:
        raise UserError("sites: the model's parts are known; allowed with model=huggingface")
    build_corpus(cfg)
    _check_schedule(cfg)  # before the rules, which take its warm-up
    build_rules(cfg.divergence, object)
    check_trackers(cfg.tracker)
    mode, _ = build_forecaster(cfg.divergence)
    if not build_monitor(cfg).taps and mode == "end":
        raise UserError("divergence.forecast=end: the monitor reads nothing; allowed: warn, off, or taps")
    with torch.device("meta"):
        model = build_module(cfg).model
    check_patterns(cfg.optimizer, named_parameters(model))
    if isinstance(strategy_of(cfg), FullyShard):
        check_shards(model, cfg.trainer.precision.value)
    if cfg.trainer.precision == "fp8":
        check_fp8(model)
    compiles(cfg, model)
    _check_memory(cfg, sum(its.numel() for its in model.parameters()))


def _check_schedule(cfg: DictConfig) -> None:
    warmup, steps = cfg.schedule.warmup_steps, cfg.trainer.max_steps
    if isinstance(warmup, float) and 0 < warmup < 1:
        raise UserError(
            f"schedule.warmup_steps={warmup}: allowed: whole steps, or a share of the run, which is written "
            f"${{share:{warmup}}}"
        )
    schedule = build_schedule(cfg)
    if warmup >= steps:
        raise UserError(f"schedule.warmup_steps={warmup}: allowed: less than trainer.max_steps={steps}")
    for step in {*range(0, steps, max(1, steps // _SCHEDULE_POINTS)), steps - 1}:
        share = schedule(step)
        if not (isinstance(share, int | float) and 0 <= share <= 1 + 1e-9):
            raise UserError(f"schedule: gives {share} at step {step}; allowed: a share of the peak, 0 to 1")


def _check_memory(cfg: DictConfig, parameters: int) -> None:
    model, data, device = cfg.model, cfg.data, device_of(cfg)
    logits = 2 * micro_batch_size(cfg) * data.sequence_length * model.vocab_size  # and their gradient
    bytes_each = 2 if cfg.trainer.precision == "bf16-true" else 4
    needed = bytes_each * _PER_PARAMETER * parameters + 4 * (logits + data.sequence_length**2)
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    else:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        shape = [f"model.{name}={shown(model[name])}" for name in _SHAPE if name in model]
        raise UserError(
            f"{', '.join(shape)}, data.batch_size={data.batch_size} in trainer.accumulate="
            f"{cfg.trainer.accumulate} parts: training needs at least {needed / 2**30:.3g} GiB; "
            f"allowed: what fits into {there / 2**30:.3g} GiB, this {device.type}'s"
        )


def _train_tiny(cfg: DictConfig) -> None:
    """Two steps of one block at its full width, with every tap read at each."""
    cfg = copy.deepcopy(cfg)
    cfg.model = small_model(cfg)
    cfg.trainer.accumulate = cfg.trainer.devices = cfg.trainer.num_nodes = 1
    cfg.data.sequence_length = min(cfg.data.sequence_length, cfg.model.sequence_length)
    with torch.device("meta"):
        if sum(its.numel() for its in build_model(cfg).parameters()) > _MOST_TRAINED:
            return
    monitor = build_monitor(cfg)
    for tap in monitor.taps.values():
        tap.every = 1
    module = build_module(cfg)
    for name, part in module.model.named_modules():
        if name.rpartition(".")[2] in SITES:
            part.register_forward_hook(_keeps_shape)
    quieten()
    with warnings.catch_warnings(), ranks(cfg, torch.device("cpu")):
        warnings.simplefilter("ignore")  # of Lightning: this is no run
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            strategy=strategy_of(cfg) or "auto",
            plugins=[*environment_of(cfg)],
            max_steps=2,
            logger=False,
            callbacks=[monitor],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        try:
            trainer.fit(module, _tiny_batches(cfg))
        except UserError:
            raise
        # Whatever a part of the user's own raises.
        except Exception as error:
            shards = isinstance(trainer.strategy, FullyShard)
            hint = "; where it needs whole tensors, allowed: trainer=ddp" if shards else ""
            raise UserError(f"{_key_of(error, module, monitor)}: {told(error)}{hint}") from error


def _keeps_shape(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    # Another shape need not fail: it may be broadcast.
    if output.shape != inputs[0].shape:
        raise ValueError(f"gives the shape {(*output.shape,)} for {(*inputs[0].shape,)}")


def _tiny_batches(cfg: DictConfig) -> DataLoader[Tensor]:
    shape = (2, _TINY_BATCH, cfg.data.sequence_length + 1)
    return DataLoader([*torch.randint(cfg.model.vocab_size, shape)], batch_size=None)  # type: ignore[arg-type]


def _key_of(error: Exception, module: LanguageModel, monitor: Monitor) -> str:
    """The key of the part whose code was running."""
    sites = {id(its): name for name, its in module.model.named_modules()}
    taps = {id(its): name for name, its in monitor.taps.items()}
    steps = {id(its): name for name, its in module.gradient.steps.items()}
    found = "model"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        its = frame.f_locals.get("self")
        if id(its) in taps:
            found = f"monitor.taps.{taps[id(its)]}"
        elif id(its) in steps:
            found = f"gradient.{steps[id(its)]}"
        elif isinstance(its, Optimizer):
            found = "optimizer"
        elif (name := sites.get(id(its))) is not None:
            site = "linear" if ".parametrizations." in name else name.rpartition(".")[2]
            found = f"norm_strategy.{site}" if site in SITES else found
    return found
