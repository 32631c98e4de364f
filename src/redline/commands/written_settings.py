"""The files that Hydra writes of a run's settings, without the passwords among them."""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write

from redline.secrets import without_passwords

_FOLDER = ".hydra"


def write_settings(config: DictConfig) -> None:
    """What Hydra puts into ``hydra.output_subdir``, which is null so that we write it."""
    hydra = config.hydra
    task = config.copy()
    with read_write(task), open_dict(task):
        del task["hydra"]
    folder = Path(hydra.runtime.output_dir) / (hydra.output_subdir or _FOLDER)
    folder.mkdir(exist_ok=True)
    save(task, folder / "config.yaml")
    save(OmegaConf.create({"hydra": _plain(hydra)}), folder / "hydra.yaml")
    save(hydra.overrides.task, folder / "overrides.yaml")
    # Of a plain grid (hydra/sweeper=basic) Hydra itself has written this one.
    grid = Path(hydra.sweep.dir) / "multirun.yaml"
    if hydra.mode.name == "MULTIRUN" and grid.is_file():
        save(OmegaConf.load(grid), grid)


def leave_no_folder() -> None:
    """Have Hydra run the command that `sys.argv` is without a folder of its own, and look at no corpus."""
    give("hydra.run.dir=.", "hydra.output_subdir=null", "~hydra.callbacks.check_first")


def give(*overrides: str) -> None:
    """Add these to `sys.argv`. Hydra's parser wants all overrides in one piece."""
    words = sys.argv
    given = (i for i in range(1, len(words)) if "=" in words[i] and not words[i].startswith("-"))
    end = next(given, 1)
    words[end:end] = overrides


def save(config: DictConfig | ListConfig, path: Path) -> None:
    """As YAML, interpolations as they are."""
    OmegaConf.save(OmegaConf.create(without_passwords(_plain(config))), path)


def _plain(config: DictConfig | ListConfig) -> Any:
    return OmegaConf.to_container(config, enum_to_str=True)
