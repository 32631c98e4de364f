"""`redline train` and `redline search`, which `python src/train.py` runs without and with -m."""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from redline.command_line import user_errors
from redline.commands.written_settings import give, leave_no_folder
from redline.config import CONF, check_settings, register
from redline.errors import UserError

register()
_PLANS = {"trainer=plan", "trainer.dry_run=true"}
_MANY = {"-m", "--multirun"}
_SHOWS = {"--cfg", "-c", "--info", "-i"}


def train() -> float | None:
    """What `sys.argv` asks for, read by Hydra. Raises UserError."""
    for word in sys.argv[1:]:
        group, _, choice = word.lstrip("+").partition("=")
        # Hydra ends with a traceback: only an experiment can be chosen as none.
        if choice == "null" and group != "experiment" and (CONF / group).is_dir():
            choices = sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))
            raise UserError(f"{group}=null: allowed: {', '.join(choices)}")
    if _PLANS & {*sys.argv} and not _MANY & {*sys.argv}:
        leave_no_folder()
    return _train()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _train(cfg: DictConfig) -> float | None:
    """One run. With -m Hydra calls the max_lr sweeper instead."""
    with user_errors():
        check_settings(cfg)
        # torch and Lightning take seconds to import; --help and a search's coordinator need neither.
        if cfg.trainer.dry_run:
            from redline.training.plan import plan_text

            print(plan_text({HydraConfig.get().runtime.choices["norm"]: cfg}))
            return None
        from redline.training.single import train_once

        return train_once(cfg).val_loss


def search() -> None:
    if not _SHOWS & {word.partition("=")[0] for word in sys.argv}:  # Hydra shows, or runs
        sys.argv.insert(1, "-m")
    train()


def plan() -> None:
    """Of a search: the words are those of `search`."""
    give("trainer.dry_run=true")
    search()
