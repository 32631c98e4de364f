"""`python src/train.py norm=…`: one run, with a progress bar and a last line."""

import logging
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from redline.errors import UserError
from redline.search import Facts, Trial
from redline.search.workers.pool import Pool, Slot
from redline.stability import Outcome, Progress, Watch, build_rules
from redline.training.checkpoints import CHECKPOINT
from redline.training.outbox import drain
from redline.training.trainable import task_of

log = logging.getLogger(__name__)


def train_once(cfg: DictConfig) -> Outcome:
    """Train ``cfg``, which has passed `check`, in Hydra's output directory and print how it ended."""
    job = HydraConfig.get()
    return _train(Path(job.runtime.output_dir), cfg, cfg.task.get("name", job.runtime.choices["norm"]))


def train_in(directory: Path, cfg: DictConfig, norm: str) -> Outcome:
    """The same in a folder that is told, as a notebook does it; ``norm`` is the variant's name."""
    task_of(cfg).check_run(directory)
    return _train(directory, cfg, norm)


def _train(directory: Path, cfg: DictConfig, norm: str) -> Outcome:
    max_steps = cfg.trainer.max_steps
    bar = ProgressBar(f"{norm} lr={cfg.lr:g}", max_steps, shown=cfg.trainer.progress_bar)
    rules: Any = OmegaConf.to_container(cfg.divergence, resolve=True)
    trial = Trial(cfg.lr, cfg.seed, directory, Facts(max_steps), tags={"norm": norm})
    train = _here if cfg.trainer.devices == cfg.trainer.num_nodes == 1 else _on_ranks
    outcome = train(cfg, trial, rules, bar.report)
    bar.close()
    if outcome is None:
        raise KeyboardInterrupt
    if (line := drain(cfg.tracker)) is not None:
        log.warning(line)
    print(_summary(cfg, norm, outcome))
    if cfg.trainer.keep_checkpoint:
        print(f"checkpoint: {shlex.quote(str(directory / CHECKPOINT))} (trainer.resume=… goes on from it)")
    return outcome


def _here(
    cfg: DictConfig, trial: Trial, rules: Mapping[str, Any], tell: Callable[[Any], object]
) -> Outcome | None:
    """None where SIGTERM has ended it."""
    trial = replace(trial, watch=Watch(build_rules(rules, object), tell))
    outcome = trial.outcome(task_of(cfg).train(trial))
    return None if trial.cancelled else outcome


def _on_ranks(
    cfg: DictConfig, trial: Trial, rules: Mapping[str, Any], tell: Callable[[Any], object]
) -> Outcome | None:
    """From a process of its own: this one has computed, and may have touched a GPU."""
    ended = Pool([Slot(0, None)], list(task_of(cfg).preload)).call(
        _here, (cfg, trial, rules), None, hear=tell
    )
    if ended.user_error is not None:
        raise UserError(ended.user_error)
    if ended.crash is not None:
        raise RuntimeError(ended.crash)
    return ended.result


class ProgressBar:
    """Drawn from the first step on, so that a mistake in the configuration stays one line."""

    def __init__(self, label: str, max_steps: int, shown: bool) -> None:
        self.label, self.max_steps, self.shown = label, max_steps, shown
        self.bar: tqdm | None = None

    def report(self, progress: Progress) -> None:
        if self.bar is None:
            # In a file, a line every ten seconds is progress enough.
            self.bar = tqdm(
                total=self.max_steps,
                initial=progress.step - 1,  # above 0 for a resumed run
                desc=self.label,
                unit="step",
                mininterval=0.2 if sys.stderr.isatty() else 10.0,
                disable=not self.shown,
            )
        self.bar.set_postfix_str(f"loss {progress.loss:.3f}", refresh=False)
        self.bar.update(progress.step - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _summary(cfg: DictConfig, norm: str, outcome: Outcome) -> str:
    head = f"{norm} lr={cfg.lr:g} seed={cfg.seed}:"
    score = cfg.task.get("score", None)  # the name of that of a user's own, in whatever unit
    loss = "" if outcome.val_loss is None else f", validation loss {outcome.val_loss:.4f} nats"
    if score in outcome.numbers:
        loss = f", {score} {outcome.numbers[score]:.4f}"
    perplexity = outcome.numbers.get("perplexity")
    more = "" if perplexity is None else f", perplexity {perplexity:.2f}"
    changed = [f"{name} {count}" for name, count in outcome.interventions.items()]
    more += f"; steps changed by what can hide divergence: {', '.join(changed)}" if changed else ""
    if outcome.diverged:
        return f"{head} diverged by rule {outcome.reason} at step {outcome.step}{loss}{more}"
    return f"{head} stable over {outcome.optimizer_steps} steps{loss}{more}"
