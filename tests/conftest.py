"""What the tests share: one thread each, and configurations composed by Hydra."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from redline.config import register

torch.set_num_threads(1)

_CONF = Path(__file__).parents[1] / "conf"


@functools.cache
def _compose(overrides: tuple[str, ...]) -> DictConfig:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(_CONF)):
        return compose("train", list(overrides))


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """Overrides as on the command line -> the configuration, the caller's own to change."""
    return lambda *overrides: copy.deepcopy(_compose(overrides))
