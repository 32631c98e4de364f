"""What the papers found, from ``literature.yaml``."""

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


@cache
def literature() -> Any:
    """The file's content, by paper; attributes are its keys."""
    return OmegaConf.load(Path(__file__).with_name("literature.yaml"))
