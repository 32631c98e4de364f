"""What a run was made with: software, commit, machine and settings."""

import functools
import logging
import os
import platform
import subprocess
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from redline.secrets import without_passwords

_PACKAGES = ("torch", "lightning", "mlflow", "optuna", "numpy", "hydra-core")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, commit, machine and device, as plain values."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "redline_commit": _commit(),
        "machine": platform.node(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": gpu or device.type,
        "cuda": torch.version.cuda,
    }


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The whole configuration as plain values, without passwords."""
    values = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(values, dict)
    return without_passwords(values)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def _commit() -> str | None:
    """Of the code that runs, ``-dirty`` where it is not what was committed; None outside of git."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    words = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def quieten() -> None:
    """Lightning's advice on loggers, workers and devices does not apply to runs made by us."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning(\.|$)")
    # A first step that fp16's loss scaler skips: the optimizer has not been called by then.
    warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step\(\)` before `optimizer\.step")
    warnings.filterwarnings("ignore", message=".*IterableDataset.*|.*isinstance.treespec.*")
