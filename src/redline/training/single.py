"""`python src/train.py norm=…`: one run, with a progress bar and a last line."""

import logging
import shlex
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tqdm import tqdm

from redline.stability import Outcome
from redline.training.checkpoints import CHECKPOINT
from redline.training.outbox import drain
from redline.training.run import run
from redline.training.watch import Progress

log = logging.getLogger(__name__)


def train_once(cfg: DictConfig) -> Outcome:
    """Train ``cfg`` in Hydra's output directory and print how it ended. Raises UserError."""
    job = HydraConfig.get()
    norm = job.runtime.choices["norm"]
    directory = Path(job.runtime.output_dir)
    bar = ProgressBar(f"{norm} lr={cfg.lr:g}", shown=cfg.trainer.progress_bar)
    outcome = run(cfg, directory, tags={"norm": norm}, report=bar.report)
    bar.close()
    if (line := drain(cfg.tracker)) is not None:
        log.warning(line)
    print(_summary(cfg, norm, outcome))
    if cfg.trainer.keep_checkpoint:
        print(f"checkpoint: {shlex.quote(str(directory / CHECKPOINT))} (trainer.resume=… goes on from it)")
    return outcome


class ProgressBar:
    """Drawn from the first step on, so that a mistake in the configuration stays one line."""

    def __init__(self, label: str, shown: bool) -> None:
        self.label, self.shown = label, shown
        self.bar: tqdm | None = None

    def report(self, progress: Progress) -> None:
        if self.bar is None:
            # Where nobody watches, a line every ten seconds is progress enough.
            self.bar = tqdm(
                total=progress.max_steps,
                initial=progress.step - 1,  # above 0 where a run is gone on with
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
    loss = "" if outcome.val_loss is None else f", validation loss {outcome.val_loss:.4f} nats"
    perplexity = f", perplexity {outcome.numbers['perplexity']:.2f}" if outcome.numbers else ""
    if outcome.diverged:
        return f"{head} diverged by rule {outcome.reason} at step {outcome.step}{loss}{perplexity}"
    return f"{head} stable over {outcome.optimizer_steps} steps{loss}{perplexity}"
