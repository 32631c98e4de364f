"""One `-m` command: from its words to variants, a ladder and a name, and on to the engine."""

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from hydra_plugins.max_lr._overrides import split
from hydra_plugins.max_lr.config import CommandLine, split_settings
from redline.commands.written_settings import save
from redline.config import check_settings
from redline.errors import UserError
from redline.files import check_writable
from redline.search import AtEnd, Search, SearchResult, Variant
from redline.search.options import Options
from redline.search.policy.cost import cost_text, expected_cost
from redline.secrets import without_password
from redline.stability import rule_specs
from redline.training.trainable import Task, task_of

_ESCAPED = re.compile(r"\\(.)")  # as Hydra's parser writes a value that it has read


def search(
    settings: dict[str, Any], config: DictConfig, hydra_context: HydraContext, arguments: Sequence[str]
) -> SearchResult | None:
    """Find every variant's edge; None for a dry run.

    Raises UserError, OutageError, KeyboardInterrupt.
    """
    # A cluster sends SIGTERM where a terminal sends Ctrl-C. A background job must react to both.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    options, command = split_settings(settings)
    here = command.jobs is None or config.hydra.runtime.choices["hydra/launcher"] == "basic"
    _check(command, here)
    loader = hydra_context.config_loader
    ladder, choices, keys = split(
        arguments, command.params, loader, options.key, config.search.ladder, command.tolerance
    )
    variants, trackers = _variants(config, loader, choices, options.key, ladder, keys)
    if config.trainer.num_nodes > 1 and os.environ.get("SLURM_PROCID", "0") != "0":
        return None  # the cluster started this command on each machine of the job; the first one searches
    asked = Search(
        options=options,
        variants=variants,
        ladder=tuple(ladder),
        home=Path("mlruns"),
        place=lambda name: _place(config, name),
        name=None if OmegaConf.is_missing(config.search, "name") else config.search.name,
        label="LR" if options.key == "lr" else options.key,
        accelerator=config.trainer.accelerator,
        prefix="hydra.sweeper.",
        name_key="search.name",
    )
    asked.check()
    check_writable(config.hydra.sweep.dir, "hydra.sweep.dir")
    if config.trainer.dry_run:
        print(_plan(variants, options, asked.ladder))
        return None
    if command.dry_run:
        lengths = {variant.name: variant.trainable.max_steps for variant in variants}
        short = options.question(asked.ladder, short=True) if options.short_run_steps else None
        print(cost_text(lengths, options.question(asked.ladder), short, options.short_run_steps))
        return None
    # What these import takes a second: a dry run does without.
    if here:
        from redline.report.at_end import WriteReport
        from redline.search.engine import run_search
        from redline.training.at_end import SendCurves

        at_end: list[AtEnd] = [SendCurves(trackers)]
        if options.report_timeout is not None:
            at_end.append(WriteReport(options.report_timeout, _tracking_uris(trackers)))
        result = run_search(asked, at_end)
    else:
        from hydra_plugins.max_lr._jobs import search_by_jobs

        assert command.jobs is not None
        result = search_by_jobs(asked, command.jobs, config, hydra_context)
    if not result.finished:
        raise SystemExit(1)  # the search has ended, but not with every answer
    return result


def _plan(variants: Sequence[Variant], options: Options, ladder: tuple[float, ...]) -> str:
    from redline.training.plan import plan_text

    runs = {its.name: its.trainable.cfg for its in variants if isinstance(its.trainable, Task)}
    short_steps: float = options.short_run_steps or 0
    cost = expected_cost(options.question(ladder), hinted=short_steps > 0)
    if short_steps:
        short_steps *= expected_cost(options.question(ladder, short=True)).expected
    return plan_text(runs, cost, short_steps)


def _tracking_uris(trackers: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The MLflow stores that any variant's runs are in."""
    return tuple(dict.fromkeys(its["mlflow"]["tracking_uri"] for its in trackers if "mlflow" in its))


def _check(command: CommandLine, here: bool) -> None:
    if here and command.jobs is not None and command.jobs > 1:
        raise UserError(
            f"hydra.sweeper.jobs={command.jobs}: more than 1 needs a hydra/launcher that starts jobs, "
            "such as submitit_slurm or ray"
        )


def _place(config: DictConfig, name: str) -> Path:
    """The search's folder, with its settings in multirun.yaml."""
    with open_dict(config):
        config.search.name = name
    directory = Path(config.hydra.sweep.dir).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    asked_for = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    save(asked_for, directory / "multirun.yaml")
    return directory


def _variants(
    config: DictConfig,
    loader: Any,
    choices: Sequence[Sequence[str]],
    key: str,
    ladder: Sequence[float],
    keys: Sequence[str],
) -> tuple[list[Variant], list[dict[str, Any]]]:
    """The variants, and the trackers of each."""
    variants, trackers = [], []
    for chosen in choices:
        cfg = loader.load_sweep_config(config, [*chosen, f"{key}={ladder[0]}"])
        HydraConfig.instance().set_config(cfg)
        variant = cfg.task.get("name") or str(cfg.hydra.runtime.choices["norm"])
        values = dict(_ESCAPED.sub(r"\1", override).split("=", 1) for override in chosen if "=" in override)
        with open_dict(cfg):
            del cfg["hydra"]
        check_settings(cfg)
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
        named = [variant] if "norm" in values or not keys else []
        variants.append(
            Variant(
                name=", ".join([*named, *(f"{name}={without_password(values[name])}" for name in keys)]),
                trainable=task_of(cfg, key, ladder[-1]),
                rules=rule_specs(plain["divergence"]),
                first_seed=cfg.seed,
                tags={"norm": variant},
            )
        )
        trackers.append(plain["tracker"])
    return variants, trackers
