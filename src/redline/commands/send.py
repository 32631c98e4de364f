"""`redline send`: what waits in MLflow's outbox is sent."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from redline.command_line import user_errors
from redline.commands.written_settings import leave_no_folder
from redline.config import CONF, check_settings, register
from redline.errors import OutageError, UserError
from redline.secrets import without_password

register()


def send() -> None:
    leave_no_folder()
    _send()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _send(cfg: DictConfig) -> None:
    with user_errors():
        check_settings(cfg)
        if "mlflow" not in cfg.tracker:
            raise UserError(f"tracker={','.join(cfg.tracker) or 'none'}: has no outbox; allowed here: mlflow")

        from redline.stores import check_tracking_uri, first_line, reach_store
        from redline.training.outbox import drain

        uri, key = cfg.tracker.mlflow.tracking_uri, "tracker.mlflow.tracking_uri"
        check_tracking_uri(str(uri), key, Path(cfg.tracker.mlflow.outbox).parent)
        try:
            reach_store(uri)
        # Whatever the driver or the network raises, it is this address.
        except Exception as error:
            raise OutageError(f"{key}={without_password(uri)}: {first_line(error)}") from error
        left = drain(cfg.tracker, float("inf"))
        if left is not None:
            raise OutageError(left)
        print("all is sent")
