"""`redline send`: what waits in MLflow's outbox is sent."""

import sys

import hydra
from omegaconf import DictConfig

from redline.command_line import user_errors
from redline.config import CONF, check_settings, register
from redline.errors import OutageError, UserError

register()


def send() -> None:
    # Leaves no folder of its own, and asks nothing of the settings of a run.
    sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null", "~hydra.callbacks.check_first"]
    _send()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _send(cfg: DictConfig) -> None:
    with user_errors():
        check_settings(cfg)
        if "mlflow" not in cfg.tracker:
            raise UserError(f"tracker={','.join(cfg.tracker) or 'none'}: has no outbox; allowed here: mlflow")

        from redline.training.outbox import drain

        left = drain(cfg.tracker, float("inf"))
        if left is not None:
            raise OutageError(left)
        print("all is sent")
