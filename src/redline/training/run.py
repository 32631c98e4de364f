"""One training run, from its configuration to its outcome."""

import signal
from dataclasses import replace

import lightning as L
from omegaconf import DictConfig

from redline import metrics, over_ranks
from redline.data import open_corpus
from redline.data.datamodule import TokenData
from redline.search import Score, Trial
from redline.training.build import build_module, build_monitor, device_of, precision_of
from redline.training.checkpoints import (
    AtomicCheckpointIO,
    RunCheckpoint,
    RunState,
    StepSeed,
    checkpoint_to_resume,
)
from redline.training.compilation import compile_losses, compiles
from redline.training.early_warning import early_warning
from redline.training.module import LanguageModel
from redline.training.plan.needs import flops_per_token
from redline.training.precision import precision_plugin, to_fp8
from redline.training.reporting import Report, interventions
from redline.training.settings import deciding_settings
from redline.training.speed import StepClock, peak_here
from redline.training.strategies import environment_of, ranks, strategy_of
from redline.training.tracked import conclude, prepare_process, tracked
from redline.training.trackers import new_run_key


def run(cfg: DictConfig, trial: Trial) -> Score:
    """Train as ``cfg`` says, keeping a checkpoint in the trial's directory; its rules judge the run.

    A checkpoint that is already there is resumed. ``cfg`` has passed `check`. Raises UserError where it
    cannot be resumed; any other exception is a crash, not an outcome. Each of several ranks calls it, and is
    given the same.
    """
    with ranks(cfg, device_of(cfg)):
        return _run(cfg, trial)


def _run(cfg: DictConfig, trial: Trial) -> Score:
    prepare_process(cfg)
    corpus = open_corpus(cfg)
    directory = trial.directory
    first = over_ranks.is_first()
    checkpoint = over_ranks.of_first(checkpoint_to_resume(cfg, directory) if first else None)
    # A CPU's faster precision is measured, and could be the other one the next time, or on another rank.
    precision = over_ranks.of_first(checkpoint.run.precision if checkpoint else precision_of(cfg))
    key = checkpoint.run.key if checkpoint else new_run_key()
    module = build_module(cfg)
    # Of a run that goes on, not asked again: it may have become longer, or be on another device.
    compiled, why = (checkpoint.run.compiled, "as before") if checkpoint else compiles(cfg, module.model)
    with tracked(cfg, trial, key, precision, {"compiled": f"{compiled} ({why})"}) as trackers:
        monitor = build_monitor(cfg)
        device, clock = device_of(cfg), StepClock(cfg.trainer.accumulate, lambda: monitor.reading)
        trainer = L.Trainer(
            accelerator=device.type.replace("cuda", "gpu"),
            devices=cfg.trainer.devices,
            num_nodes=cfg.trainer.num_nodes,
            strategy=strategy_of(cfg) or "auto",
            accumulate_grad_batches=cfg.trainer.accumulate,
            max_steps=cfg.trainer.max_steps,
            max_epochs=-1,
            logger=trackers.loggers,
            callbacks=[
                # In this order a checkpoint holds what follows from the monitor's last reading.
                monitor,
                *early_warning(cfg, monitor, trial, trackers.set_tags),
                Report(trial, trackers),
                StepSeed(cfg.seed),
                RunCheckpoint(
                    directory,
                    cfg.trainer.checkpoint_every,
                    RunState(
                        trackers.run_key or key, precision, compiled, deciding_settings(cfg, corpus.identity)
                    ),
                    trial,
                ),
            ],
            plugins=[AtomicCheckpointIO(), precision_plugin(precision, device), *environment_of(cfg)],
            # Validation is run once, by hand: it decides the verdict and must not depend on a cadence.
            limit_val_batches=0,
            log_every_n_steps=cfg.trainer.max_steps,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=directory,
            profiler=clock,
        )
        if callable(signal.getsignal(signal.SIGTERM)):
            # It cancels the trial, which ends after a step. Lightning would raise, on ranks after messages.
            trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        if precision == "fp8":
            to_fp8(module.model, device)
        if compiled:
            compile_losses(module)
        data = TokenData(
            corpus,
            sequence_length=cfg.data.sequence_length,
            batch_size=cfg.data.batch_size,
            val_batches=cfg.data.val_batches,
            seed=cfg.seed,
            max_steps=cfg.trainer.max_steps,
            accumulate=cfg.trainer.accumulate,
        )
        trainer.fit(module, data, ckpt_path=checkpoint.path if checkpoint else None, weights_only=True)
        _log_speed(trainer, clock, module, cfg, peak_here(device, precision))
        counts = {name: int(count) for name, count in interventions(trainer, module).items()}
        score = Score(None, corpus.unigram_entropy, steps=trainer.global_step, interventions=counts)
        if over_ranks.any_of(trial.cancelled, module.device):
            trial.watch.cancelled = True
        if trial.watch.final_verdict() is None and not trial.cancelled:
            trainer.limit_val_batches = cfg.data.val_batches * cfg.trainer.accumulate
            found = trainer.validate(module, data, verbose=False)[0]
            score = replace(
                score, loss=found[metrics.VAL_LOSS], numbers={"perplexity": found[metrics.VAL_PERPLEXITY]}
            )
    return conclude(cfg, trial, trackers, trainer, score)


def _log_speed(
    trainer: L.Trainer, clock: StepClock, module: LanguageModel, cfg: DictConfig, peak: float | None
) -> None:
    tokens = cfg.data.batch_size * cfg.data.sequence_length
    peaks = None if peak is None else peak * trainer.world_size
    found = clock.found(tokens, flops_per_token(module.model, cfg.data.sequence_length), peaks)
    for logger in trainer.loggers:
        logger.log_metrics(found, max(0, trainer.global_step - 1))
