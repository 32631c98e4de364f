"""The keys of the task `lightning`, and where modules that they name are looked for."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from redline.bounds import Steps, shown
from redline.config import check_settings
from redline.errors import UserError

# What a task of the user's own has no use for: a part there would do nothing.
_UNUSED = (
    "norm_strategy",
    "norm_layer",
    "model",
    "init",
    "data",
    "loss",
    "optimizer",
    "schedule",
    "gradient",
)
# What is ours alone, and what it may be here: one device, and the module as it is.
_TRAINER: dict[str, tuple[Any, ...]] = {
    "devices": (1,),
    "num_nodes": (1,),
    "strategy": (None,),
    "checkpoint_activations": (False,),
    "compile": ("auto", "never"),
}
_ALLOWED_UNUSED: dict[str, Any] = {
    "path": None,
    "val_path": None,
    "steps": {},
    "tokenizer": None,
    "cross_entropy": None,
}


@dataclass
class OwnSettings:
    """The keys of the group `task`; the values are in conf/task/lightning.yaml."""

    _target_: str
    name: str | None  # None where the module is
    module: Any
    data: Any
    lr_argument: str
    score: str
    mode: Literal["min", "max"]
    floor: float | None
    warmup_steps: Steps
    trainer: dict[str, Any]


def check_keys(cfg: DictConfig) -> None:
    """Raise UserError for a key that is unknown, out of bounds, or of no use here."""
    check_settings(cfg)
    check_settings(cfg.task, OwnSettings, "task.")
    if cfg.task.module.get("_target_") is None:
        raise UserError("task.module._target_=null: allowed: a LightningModule, as PACKAGE.MODULE.CLASS")
    for key, allowed in _TRAINER.items():
        if cfg.trainer[key] not in allowed:
            raise UserError(
                f"trainer.{key}={shown(cfg.trainer[key])}: allowed with task=lightning: {shown(allowed[0])}"
            )
    for group in _UNUSED:
        its: Any = OmegaConf.to_container(cfg[group])
        for key, value in its.items():
            if value != "???" and (key not in _ALLOWED_UNUSED or value != _ALLOWED_UNUSED[key]):
                name = "norm" if group == "norm_strategy" else group
                raise UserError(
                    f"{name}: is not that of task.module, which has its own; allowed: none is chosen"
                )


def find_users_modules() -> None:
    """Modules in the folder of the command are found, as `python -m` does it; installed ones come first."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
