"""One training run, from its configuration to its outcome."""

import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch
import yaml
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from redline.data import open_corpus
from redline.data.datamodule import TokenData
from redline.stability import EndRule, OnlineRule, Outcome, Verdict, build_rules
from redline.training.allocator import keep_freed_memory
from redline.training.build import build_module, build_monitor, device_of, precision_of
from redline.training.check import check
from redline.training.checkpoints import (
    CHECKPOINT,
    AtomicCheckpointIO,
    RunCheckpoint,
    StepSeed,
    checkpoint_to_resume,
)
from redline.training.early_warning import early_warning
from redline.training.environment import environment, resolved
from redline.training.precision import LIGHTNING_NAMES
from redline.training.trackers import TrackedRun, Trackers, build_trackers, new_run_key
from redline.training.watch import Progress, Watch


def run(
    cfg: DictConfig,
    directory: Path,
    *,
    tags: dict[str, str],
    experiment: str = "runs",
    report: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Train as ``cfg`` says, keeping a checkpoint in ``directory``, and judge by rules 1 to 4.

    A checkpoint already in ``directory`` is gone on from. Raises UserError for a mistake in ``cfg``; whatever
    else is raised is a crash, not an outcome.
    """
    check(cfg)
    quieten()
    keep_freed_memory()
    if cfg.trainer.threads is not None:
        torch.set_num_threads(cfg.trainer.threads)
    corpus = open_corpus(cfg)
    precision = precision_of(cfg)
    checkpoint = checkpoint_to_resume(cfg, directory)
    state = torch.load(checkpoint, weights_only=False, map_location="cpu") if checkpoint else {}
    key = state.get("run_key") or new_run_key()
    trackers = build_trackers(
        cfg.tracker,
        TrackedRun(
            key=key,
            experiment=experiment,
            name=f"{tags.get('variant', tags['norm'])} lr={cfg.lr:g} seed={cfg.seed}",
            tags={**tags, "lr": f"{cfg.lr:g}", "seed": str(cfg.seed), "precision": precision},
        ),
    )
    try:
        _describe(cfg, trackers)
        watch = Watch(build_rules(cfg.divergence, OnlineRule), lambda: trackers.page, report)
        monitor = build_monitor(cfg)
        trainer = L.Trainer(
            accelerator=device_of(cfg).type.replace("cuda", "gpu"),
            devices=1,
            precision=LIGHTNING_NAMES[precision],  # type: ignore[arg-type]
            max_steps=cfg.trainer.max_steps,
            max_epochs=-1,
            logger=trackers.loggers,
            callbacks=[
                # In this order a checkpoint holds what follows from the monitor's last reading.
                monitor,
                *early_warning(cfg, monitor, watch, trackers.set_tags),
                watch,
                StepSeed(cfg.seed),
                RunCheckpoint(directory, cfg.trainer.checkpoint_every, trackers.run_key or key),
            ],
            plugins=[AtomicCheckpointIO()],
            # Validation is run once, by hand: it decides the verdict and must not depend on a cadence.
            limit_val_batches=cfg.data.val_batches,
            val_check_interval=cfg.trainer.max_steps + 1,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=cfg.trainer.max_steps,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=directory,
        )
        module = build_module(cfg)
        data = TokenData(
            corpus,
            sequence_length=cfg.data.sequence_length,
            batch_size=cfg.data.batch_size,
            val_batches=cfg.data.val_batches,
            seed=cfg.seed,
            max_steps=cfg.trainer.max_steps,
        )
        started = time.monotonic()
        try:
            trainer.fit(module, data, ckpt_path=checkpoint, weights_only=False)
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
        steps, verdict = trainer.global_step, watch.final_verdict()
        metrics: Mapping[str, float] = {}
        if verdict is None:
            metrics = trainer.validate(module, data, verbose=False)[0]
        outcome = _outcome(cfg, watch, verdict, steps, metrics, corpus.unigram_entropy)
        outcome = replace(outcome, seconds=time.monotonic() - started)
    except BaseException as error:
        ended_from_outside = isinstance(error, KeyboardInterrupt | SIGTERMException)
        trackers.end("KILLED" if ended_from_outside else "FAILED")
        raise
    if cfg.trainer.keep_checkpoint:
        trainer.save_checkpoint(directory / CHECKPOINT)
    else:
        (directory / CHECKPOINT).unlink(missing_ok=True)
    trackers.set_tags(
        {
            "verdict": "diverged" if outcome.diverged else "stable",
            "reason": outcome.reason or "",
            "step": str(outcome.step),
            "spikes": str(outcome.spikes),
        }
    )
    trackers.end("FINISHED")
    return replace(outcome, page=trackers.page)


def _outcome(
    cfg: DictConfig,
    watch: Watch,
    verdict: Verdict | None,
    optimizer_steps: int,
    metrics: Mapping[str, float],
    unigram_entropy: float,
) -> Outcome:
    val_loss = metrics.get("val/loss")
    reason, step = (verdict.reason, verdict.step) if verdict else (None, watch.steps_seen - 1)
    if val_loss is not None:
        rules = build_rules(cfg.divergence, EndRule)
        broken = [name for name, rule in rules.items() if rule.broken_by(val_loss, unigram_entropy)]
        reason = broken[0] if broken else None
    return Outcome(
        value=cfg.lr,
        seed=cfg.seed,
        reason=reason,
        step=step,
        optimizer_steps=optimizer_steps,
        val_loss=val_loss,
        initial_loss=watch.initial_loss,
        train_loss=watch.last_loss,
        floor=unigram_entropy,
        numbers={"perplexity": metrics["val/perplexity"]} if metrics else {},
        spikes=sum(getattr(rule, "spikes", 0) for rule in watch.rules.values()),
    )


def _describe(cfg: DictConfig, trackers: Trackers) -> None:
    """What was asked for, and what it is run with."""
    config = resolved(cfg)
    trackers.log_file("config.yaml", yaml.safe_dump(config, sort_keys=False))
    trackers.log_file("environment.yaml", yaml.safe_dump(environment(device_of(cfg)), sort_keys=False))
    del config["search"]  # a tag tells it
    trackers.log_hyperparams(config)


def quieten() -> None:
    """Lightning's advice on loggers, workers and devices does not apply to runs made by us."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning(\.|$)")
    warnings.filterwarnings("ignore", message=".*IterableDataset.*|.*isinstance.treespec.*")
