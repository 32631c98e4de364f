import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf

from redline.data import open_corpus, train_batch, val_batches
from redline.search import Facts, Trial
from redline.stability import Outcome, Progress, Watch, build_rules
from redline.training.build import build_module
from redline.training.run import run

ROOT = Path(__file__).parents[2]
SITES = {"qkv": "attention.qkv", "proj": "attention.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


class Stopped(Exception):  # noqa: N818
    """What ends a run from outside."""


def trial_of(
    cfg: DictConfig, directory: Path, tell: Callable[[Progress], Any] = lambda progress: None, **kwargs: Any
) -> Trial:
    """The trial that a single run of ``cfg`` is."""
    watch = Watch(build_rules(OmegaConf.to_container(cfg.divergence, resolve=True), object), tell)
    kwargs = {"tags": {"norm": "any"}, **kwargs}
    return Trial(cfg.lr, cfg.seed, directory, Facts(cfg.trainer.max_steps), watch=watch, **kwargs)


def train(
    cfg: DictConfig,
    directory: Path,
    stop_at: int | None = None,
    also: Callable[[Progress], None] = lambda progress: None,
    **kwargs: Any,
) -> tuple[Outcome, dict]:
    """The outcome, and the loss reported for each step; dies on being told of step ``stop_at``.

    ``also`` is told of every step too.
    """
    losses: dict[int, float] = {}

    def report(progress: Progress) -> None:
        also(progress)
        assert progress.step - 1 not in losses, "a step reported twice"
        losses[progress.step - 1] = progress.loss
        if progress.step - 1 == stop_at:
            raise Stopped

    trial = trial_of(cfg, directory, report, **kwargs)
    return trial.outcome(run(cfg, trial)), losses


def hand_written(cfg: DictConfig) -> dict[str, Any]:
    """The run that ``cfg`` means, as a plain loop: losses, gradient norms, output norms, validation loss."""
    model, corpus, steps = build_module(cfg).model, open_corpus(cfg), cfg.trainer.max_steps
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, fused=True)
    warmup, seen = cfg.schedule.warmup_steps, {}
    for layer, block in enumerate(model.blocks):
        for name, path in SITES.items():
            block.get_submodule(path).register_forward_hook(
                lambda _, __, out, key=f"norm/{name}/layer_{layer:02d}": seen.update(
                    {key: (out.detach() ** 2).sum(-1).sqrt().mean().item()}
                )
            )
    losses, grad_norms, norms = [], [], []
    for step in range(steps):
        share = (step + 1) / warmup
        if step >= warmup:
            angle = math.pi * (step - warmup) / (steps - 1 - warmup)
            share = 0.1 + 0.9 * (1 + math.cos(angle)) / 2
        for group in optimizer.param_groups:
            group["lr"] = cfg.lr * share
        batch = (corpus.train, cfg.data.sequence_length, cfg.data.batch_size, cfg.seed, step)
        tokens = torch.from_numpy(train_batch(*batch))
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        squares = [parameter.grad.square().sum() for parameter in model.parameters()]
        norm = torch.stack(squares).sum().sqrt()
        for parameter in model.parameters():
            parameter.grad *= min(1.0, cfg.gradient.clip.max_norm / (norm.item() + 1e-6))
        optimizer.step()
        losses.append(loss.item())
        grad_norms.append(norm.item())
        norms.append(dict(seen))
    total, count = 0.0, 0
    model.eval()
    with torch.no_grad():
        for batch in val_batches(
            corpus.val, cfg.data.sequence_length, cfg.data.batch_size, cfg.data.val_batches
        ):
            tokens = torch.from_numpy(batch)
            chosen = torch.log_softmax(model(tokens[:, :-1]), -1).gather(-1, tokens[:, 1:, None])
            total, count = total - chosen.sum().item(), count + chosen.numel()
    return {
        "loss": losses,
        "grad_norm": grad_norms,
        "norms": norms,
        "val_loss": total / count,
        "unigram_entropy": corpus.unigram_entropy,
        "model": model,
    }
