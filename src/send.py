"""Send what waits in MLflow's outbox: `make send`, or `python src/send.py tracker.mlflow.tracking_uri=…`."""

import sys
from pathlib import Path

from hydra import compose, initialize_config_dir

from redline.command_line import user_errors
from redline.config import check_keys, register
from redline.errors import OutageError, UserError


def send(overrides: list[str]) -> None:
    register()
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        cfg = compose("train", overrides)
    check_keys(cfg)
    if "mlflow" not in cfg.tracker:
        raise UserError(f"tracker={','.join(cfg.tracker) or 'none'}: has no outbox; allowed here: mlflow")

    from redline.training.outbox import drain

    left = drain(cfg.tracker, float("inf"))
    if left is not None:
        raise OutageError(left)
    print("all is sent")


if __name__ == "__main__":
    with user_errors():
        send(sys.argv[1:])
