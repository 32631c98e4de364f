"""What Hydra calls before it makes a run's folder, and when it has made it."""

import copy
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from redline.command_line import user_errors
from redline.commands.written_settings import write_settings
from redline.files import check_writable


class CheckFirst(Callback):
    """Finds a mistake in the settings of a single run while there is no folder yet, as a search does."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        from redline.training.trainable import task_of

        cfg = copy.deepcopy(config)
        with open_dict(cfg):
            del cfg["hydra"]
        # Hydra makes a warning of whatever else is raised here; the run then meets it again.
        HydraConfig.instance().set_config(config)  # which the folder's name asks
        with user_errors():
            check_writable(config.hydra.run.dir, "hydra.run.dir")
            task_of(cfg).check_run(Path(config.hydra.run.dir))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        with user_errors():
            write_settings(config)
