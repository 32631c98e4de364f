"""From the configuration of the task `lightning` to the user's module, data and Trainer arguments."""

import inspect
from collections.abc import Callable
from typing import Any

import lightning as L
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from redline.errors import UserError
from redline.parts import Kind, find_part, find_target, returns, told
from redline.training.build import device_of
from redline.training.own.keys import find_users_modules
from redline.training.precision import check_precision

GROUPS = "groups"
_PRECISIONS = ("auto", "fp32", "bf16-mixed", "fp16-mixed")
_LR_NAMES = ("lr", "learning_rate")
_MODULE = Kind("a subclass of lightning.LightningModule", returns(L.LightningModule), nested=True)
_DATA = Kind("a subclass of lightning.LightningDataModule", returns(L.LightningDataModule), nested=True)
# The Trainer's arguments that are said elsewhere, and where.
_ELSEWHERE = {
    "max_steps": "trainer.max_steps",
    "max_epochs": "trainer.max_steps",
    "accelerator": "trainer.accelerator",
    "accumulate_grad_batches": "trainer.accumulate",
    "precision": "trainer.precision",
    "logger": "tracker",
    "enable_checkpointing": "trainer.keep_checkpoint",
    "enable_progress_bar": "trainer.progress_bar",
    "default_root_dir": "hydra.run.dir",
}
_NOT_HERE = (
    "max_time",
    "min_epochs",
    "min_steps",
    "fast_dev_run",
    "barebones",
    "devices",
    "num_nodes",
    "strategy",
    "plugins",
)


def module_part(cfg: DictConfig) -> tuple[Callable[[], L.LightningModule], str]:
    """What makes the module, with its LR where that is an argument of its own; and what the LR is given to.
    Raises UserError.
    """
    find_users_modules()
    spec: Any = OmegaConf.to_container(cfg.task.module, resolve=True)
    asked = cfg.task.lr_argument
    argument = _lr_argument(spec) if asked == "auto" else asked
    if argument != GROUPS:
        *path, last = argument.split(".")
        place = spec
        for name in path:
            place = place.get(name)
            if not isinstance(place, dict):
                raise UserError(f"task.lr_argument={asked}: task.module has no {name} with arguments")
        place[last] = cfg.lr
    return find_part("task.module", spec, _MODULE), argument


def _lr_argument(spec: dict[str, Any]) -> str:
    target = find_target("task.module", spec, _MODULE)
    taken = inspect.signature(target).parameters
    return next((name for name in _LR_NAMES if name in taken), GROUPS)


def build_module(cfg: DictConfig) -> L.LightningModule:
    L.seed_everything(cfg.seed, verbose=False)
    make, _ = module_part(cfg)
    return make()


def build_data(cfg: DictConfig) -> L.LightningDataModule | None:
    find_users_modules()
    if cfg.task.data is None or cfg.task.data.get("_target_") is None:
        return None
    data: L.LightningDataModule = find_part("task.data", cfg.task.data, _DATA)()
    return data


def trainer_arguments(cfg: DictConfig) -> dict[str, Any]:
    """Those of the user's own, its callbacks made. Raises UserError."""
    find_users_modules()
    plain: Any = OmegaConf.to_container(cfg.task.trainer, resolve=True)
    known = inspect.signature(L.Trainer).parameters
    for name in plain:
        if name in _ELSEWHERE:
            raise UserError(f"task.trainer.{name}: allowed: {_ELSEWHERE[name]}, which says it")
        if name in _NOT_HERE or name not in known:
            allowed = ", ".join(its for its in known if its not in (*_ELSEWHERE, *_NOT_HERE))
            raise UserError(f"task.trainer.{name}: unknown argument; allowed: {allowed}")
    try:
        made: dict[str, Any] = instantiate(plain, _convert_="all")
    # Whatever a callback of the user's own raises.
    except Exception as error:
        raise UserError(f"task.trainer: {told(error)}") from error
    return made


def precision_of(cfg: DictConfig) -> str:
    """What ``trainer.precision`` asks for; fp32 for ``auto``, as with Lightning itself."""
    asked = cfg.trainer.precision.value
    if asked not in _PRECISIONS:
        raise UserError(f"trainer.precision={asked}: allowed with task=lightning: {', '.join(_PRECISIONS)}")
    check_precision(asked, device_of(cfg), cfg.trainer.allow_emulated)
    return "fp32" if asked == "auto" else asked
