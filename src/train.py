"""Train one run, or with -m search each variant's largest stable learning rate. See README.md."""

import sys

try:
    import hydra
    from omegaconf import DictConfig
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; run `make setup` once, then use .venv/bin/python")

from redline.command_line import user_errors
from redline.config import check_keys, register

register()


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def train(cfg: DictConfig) -> float | None:
    """One run; with -m, the max_lr sweeper starts its own and never comes here."""
    # torch and Lightning take seconds to import: --help and a search's coordinator do without.
    from redline.training.single import train_once

    with user_errors():
        check_keys(cfg)
        return train_once(cfg).val_loss


if __name__ == "__main__":
    with user_errors():
        train()
