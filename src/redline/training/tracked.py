"""What every run does before and after it trains: its process, its trackers, its verdict."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from redline import over_ranks
from redline.search import Score, Trial
from redline.training.allocator import keep_freed_memory
from redline.training.build import device_of
from redline.training.checkpoints import CHECKPOINT
from redline.training.environment import environment, quieten, resolved
from redline.training.trackers import TrackedRun, Trackers, build_trackers


def prepare_process(cfg: DictConfig) -> None:
    quieten()
    keep_freed_memory()
    if cfg.trainer.threads is not None:
        torch.set_num_threads(cfg.trainer.threads)


@contextmanager
def tracked(
    cfg: DictConfig,
    trial: Trial,
    key: str,
    precision: str,
    software: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Trackers]:
    """The trackers of a run, which hear of an end by an exception; ``software``: what else it is run with."""
    tags = trial.tags
    value = tags.get("searched", f"lr={cfg.lr:g}")
    trackers = build_trackers(
        cfg.tracker if over_ranks.is_first() else {},
        TrackedRun(
            key=key,
            experiment=trial.search or "runs",
            name=f"{tags.get('variant', tags['norm'])} {value} seed={cfg.seed}",
            tags={**tags, "lr": f"{cfg.lr:g}", "seed": str(cfg.seed), "precision": precision},
        ),
    )
    try:
        _describe(cfg, trackers, software)
        try:
            yield trackers
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
    except BaseException as error:
        ended_from_outside = isinstance(error, KeyboardInterrupt | SIGTERMException)
        trackers.end("KILLED" if ended_from_outside else "FAILED")
        raise


def conclude(cfg: DictConfig, trial: Trial, trackers: Trackers, trainer: L.Trainer, score: Score) -> Score:
    """Keep the checkpoint or remove it, and tell the trackers the verdict."""
    if over_ranks.any_of(trial.cancelled, trainer.strategy.root_device):
        trackers.end("KILLED")
        return score
    path = trial.directory / CHECKPOINT
    if cfg.trainer.keep_checkpoint:
        trainer.save_checkpoint(path)
        trainer.strategy.checkpoint_io.teardown()
    elif over_ranks.is_first():
        trainer.strategy.remove_checkpoint(path)
    ended = trial.outcome(score)
    trackers.set_tags(
        {
            "verdict": "diverged" if ended.diverged else "stable",
            "reason": ended.reason or "",
            "step": str(ended.step),
            "spikes": str(ended.spikes),
        }
    )
    trackers.end("FINISHED")
    if trackers.page is not None:
        trial.link(trackers.page)
    return score


def _describe(cfg: DictConfig, trackers: Trackers, software: Mapping[str, Any]) -> None:
    """What was asked for, and what it is run with."""
    config = resolved(cfg)
    made_with = {**environment(device_of(cfg)), **software}
    for name, content in {"config": config, "environment": made_with}.items():
        trackers.log_file(f"{name}.yaml", yaml.safe_dump(content, sort_keys=False, encoding="utf-8"))
    del config["search"]  # it is a tag already
    trackers.log_hyperparams(config)
