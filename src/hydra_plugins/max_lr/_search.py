"""One `-m` command: from its words to variants, a ladder and a name, and on to the search."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from hydra_plugins.max_lr._jobs import search_by_jobs
from hydra_plugins.max_lr._overrides import split, varied
from hydra_plugins.max_lr.config import MaxLRSweeperConf
from redline.config import check_keys
from redline.errors import UserError
from redline.search.housekeeping import JOBS
from redline.search.policy.cost import cost_text
from redline.search.policy.state import Question
from redline.search.publish import Publishing
from redline.search.run import run_search
from redline.search.settings import Settings
from redline.search.store.searches import choose_name
from redline.search.store.storage import open_storage
from redline.search.variant import Variant, fingerprint
from redline.search.workers.pool import Pool, make_slots

_VOTES = ("any", "majority", "all")


def search(
    settings: MaxLRSweeperConf, config: DictConfig, hydra_context: HydraContext, arguments: Sequence[str]
) -> dict[str, Any]:
    """Find every variant's edge; gives what `result.json` holds.

    Raises UserError, OutageError, KeyboardInterrupt.
    """
    # A cluster's farewell is a Ctrl-C, and one sent to a background job counts.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    here = settings.jobs is None or config.hydra.runtime.choices["hydra/launcher"] == "basic"
    _check(settings, here)
    config_loader = hydra_context.config_loader
    ladder, choices = split(arguments, config_loader, config.search.ladder, settings.tolerance)
    variants = _compose(config, config_loader, choices, ladder, varied(arguments, config_loader))
    _check_scouts(settings.scout_steps, variants)
    if settings.dry_run:
        question = Question(ladder, settings.seeds, settings.vote, settings.doubt)  # type: ignore[arg-type]
        print(cost_text(variants, question, settings.scout_steps))
        return {}
    slots, threads = make_slots(settings.workers, config.trainer.accelerator)
    # None where jobs search: a pool's environment is not to be theirs.
    pool = Pool(slots, preload=["redline.training.jobs"]) if here else None
    if pool is not None:
        pool.warm_up()

    Path("mlruns").mkdir(exist_ok=True)
    storage = open_storage(settings.storage, settings.storage_patience)
    asked = fingerprint(variants, ladder, {"seeds": settings.seeds, "vote": settings.vote})
    given = None if OmegaConf.is_missing(config.search, "name") else config.search.name
    name = choose_name(storage, given, asked, [variant.name for variant in variants])
    with open_dict(config):
        config.search.name = name
    directory = Path(config.hydra.sweep.dir).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    asked_for = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    OmegaConf.save(asked_for, directory / "multirun.yaml")

    plan = Settings(
        name=name,
        directory=directory,
        ladder=ladder,
        seeds=settings.seeds,
        vote=settings.vote,  # type: ignore[arg-type]
        doubt=settings.doubt,
        scout_steps=settings.scout_steps,
        retries=settings.retries,
        beat_every=settings.beat_every,
        patience=settings.patience,
        trial_job=f"{JOBS}:trial",
        threads=threads,
    )
    if pool is not None:
        publishing = Publishing(settings.storage, settings.reference, settings.report_patience)
        result = run_search(plan, variants, asked, storage, pool, publishing)
    else:
        result = search_by_jobs(settings, plan, variants, config, hydra_context)
    if any(entry["open"] for entry in result["variants"].values()):
        raise SystemExit(1)  # the search has ended, but not with every answer
    return result


def _check(settings: MaxLRSweeperConf, here: bool) -> None:
    if settings.jobs is not None and settings.jobs < 1:
        raise UserError(
            f"hydra.sweeper.jobs={settings.jobs}: allowed: 1 or more, or null to search in this process"
        )
    if here and settings.jobs is not None and settings.jobs > 1:
        raise UserError(
            f"hydra.sweeper.jobs={settings.jobs}: more than 1 needs a hydra/launcher that starts jobs, "
            "such as submitit_slurm or ray"
        )
    if settings.seeds < 1:
        raise UserError(f"hydra.sweeper.seeds={settings.seeds}: allowed: 1 or more")
    if settings.vote not in _VOTES:
        raise UserError(f"hydra.sweeper.vote={settings.vote}: allowed: {', '.join(_VOTES)}")
    if not 0 < settings.doubt <= 1:
        raise UserError(f"hydra.sweeper.doubt={settings.doubt}: allowed: above 0, up to 1")
    if settings.retries < 0:
        raise UserError(f"hydra.sweeper.retries={settings.retries}: allowed: 0 or more")
    if not settings.beat_every > 0:
        raise UserError(f"hydra.sweeper.beat_every={settings.beat_every}: allowed: a number above 0")
    if not settings.patience > settings.beat_every:
        raise UserError(f"hydra.sweeper.patience={settings.patience}: allowed: more than beat_every")
    if settings.report_patience is not None and not settings.report_patience > 0:
        allowed = "a number of seconds above 0, or null for no report"
        raise UserError(f"hydra.sweeper.report_patience={settings.report_patience}: allowed: {allowed}")
    if not settings.storage_patience > 0:
        allowed = "a number of seconds above 0"
        raise UserError(f"hydra.sweeper.storage_patience={settings.storage_patience}: allowed: {allowed}")


def _check_scouts(scout_steps: int | None, variants: Sequence[Variant]) -> None:
    for variant in variants if scout_steps is not None else ():
        low, high = variant.cfg.schedule.warmup_steps, variant.cfg.trainer.max_steps
        if not low < scout_steps < high:
            raise UserError(
                f"hydra.sweeper.scout_steps={scout_steps}: allowed: more than schedule.warmup_steps={low} "
                f"and less than trainer.max_steps={high}, or null"
            )


def _compose(
    config: DictConfig,
    config_loader: Any,
    choices: Sequence[Sequence[str]],
    ladder: Sequence[float],
    keys: Sequence[str],
) -> list[Variant]:
    variants = []
    for chosen in choices:
        cfg = config_loader.load_sweep_config(config, [*chosen, f"lr={ladder[0]}"])
        HydraConfig.instance().set_config(cfg)
        norm = cfg.hydra.runtime.choices["norm"]
        values = dict(override.split("=", 1) for override in chosen)
        with open_dict(cfg):
            del cfg["hydra"]
        check_keys(cfg)
        variants.append(Variant(norm, tuple((key, values[key]) for key in keys), cfg))
    return variants
