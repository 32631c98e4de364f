"""`redline send`: what waits in MLflow's outbox is sent."""

import sys

import hydra
from omegaconf import DictConfig

from redline.command_line import user_errors
from redline.config import CONF, check_keys, register
from redline.errors import OutageError, UserError

register()


def send() -> None:
    sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null"]  # leaves no folder of its own
    _send()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _send(cfg: DictConfig) -> None:
    with user_errors():
        check_keys(cfg)
        if "mlflow" not in cfg.tracker:
            raise UserError(f"tracker={','.join(cfg.tracker) or 'none'}: has no outbox; allowed here: mlflow")

        from redline.training.outbox.sender import Sender

        sender = Sender.of(cfg.tracker.mlflow)
        before = sender.waiting()
        left = sender.drain(float("inf"))
        print(f"{sender.store}: {before - left} run(s) sent, {left} left in {sender.outbox.folder}")
        if left:
            raise OutageError(sender.what_waits())
