"""`redline train` and `redline search`, which `python src/train.py` runs without and with -m."""

import sys

import hydra
from omegaconf import DictConfig

from redline.command_line import user_errors
from redline.config import CONF, check_settings, register

register()
_SHOWS = {"--cfg", "-c", "--info", "-i"}


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def train(cfg: DictConfig) -> float | None:
    """One run. With -m Hydra calls the max_lr sweeper instead."""
    # torch and Lightning take seconds to import; --help and a search's coordinator need neither.
    from redline.training.single import train_once

    with user_errors():
        check_settings(cfg)
        return train_once(cfg).val_loss


def search() -> None:
    if not _SHOWS & {word.partition("=")[0] for word in sys.argv}:  # Hydra shows, or runs
        sys.argv.insert(1, "-m")
    train()
