"""Trains tiny runs below, around and beyond their variants' edges and stores their curves for `forecast.py`.

One process, one thread, a file a run: started again, it goes on with what is missing, and ends by packing all
of them into `forecast_curves.npz`. What is packed is not trained again; without that file it takes about an
hour and a half on one core.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.loggers.logger import DummyLogger
from omegaconf import DictConfig, OmegaConf

from _harness import ROOT
from redline.config import register
from redline.data import open_corpus
from redline.data.datamodule import TokenData
from redline.search import Facts, Score, Trial
from redline.stability import Outcome, Watch, build_rules
from redline.training.build import build_module, build_monitor
from redline.training.checkpoints import StepSeed
from redline.training.environment import quieten
from redline.training.reporting import Report
from redline.training.trackers import Trackers

CURVES = ROOT / "bench" / "forecast_curves.npz"
EVERY = 5  # steps between two readings
SITES = ("qkv", "proj", "fc1", "fc2")
# Gentle variants break at smaller rates than others: each has runs below, at and above its edge.
LOW = (0.02, 0.05, 0.12, 0.3, 0.8, 2.0)
HIGH = (0.05, 0.2, 0.5, 0.8, 1.2, 2.0)
LADDERS = {norm: LOW for norm in ("baseline", "layer_scale", "soft_temp", "soft_clip", "sigma_reparam")}
LADDERS |= {norm: HIGH for norm in ("qk", "qkv", "qk_cap", "qk_fc", "soft_cap")}
# Around the edges, where a search runs most; not for those that the limits were set on.
BETWEEN = {LOW: (0.08, 0.2, 0.5), HIGH: (0.12, 0.3)}
TINY = (64, 8)  # width, layers
TUNED = [(norm, 0, TINY) for norm in ("baseline", "qk")]
# Others that were looked at while the forecaster was made, in other seeds, some in another shape too.
LOOKED_AT = [("qkv", 1, TINY), ("layer_scale", 1, TINY), ("baseline", 3, (32, 4)), ("qkv", 3, (32, 4))]
LOOKED_AT += [("qk_cap", 2, TINY), ("soft_cap", 1, TINY), ("baseline", 4, (128, 4)), ("qkv", 4, (128, 4))]
# Recorded once it was made.
UNSEEN = [(norm, 5, TINY) for norm in ("soft_temp", "soft_clip", "qk_fc", "sigma_reparam")]
UNSEEN += [("baseline", 6, (96, 6)), ("qk", 6, (96, 6))]


class Run(NamedTuple):
    norm: str
    seed: int
    width: int
    num_layers: int
    lr: float

    @property
    def name(self) -> str:
        return f"{self.norm}-seed{self.seed}-{self.width}x{self.num_layers}-lr{self.lr:g}"


def runs() -> Iterator[Run]:
    for norm, seed, shape in TUNED + LOOKED_AT + UNSEEN:
        ladder = LADDERS[norm]
        if (norm, seed, shape) not in TUNED:
            ladder += BETWEEN[ladder]
        for lr in ladder:
            yield Run(norm, seed, *shape, lr)


class Curves(DummyLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, dict[int, float]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        for key, value in metrics.items():
            self.values.setdefault(key, {})[step] = value


def recorded(run: Run, folder: Path) -> dict[str, Any]:
    """Train a run and give its curves: one value a step, or a row of layers a reading."""
    cfg = compose(
        "train",
        [
            f"norm={run.norm}",
            f"lr={run.lr}",
            f"seed={run.seed}",
            f"model.width={run.width}",
            f"model.num_layers={run.num_layers}",
            "trainer.max_steps=250",
            f"monitor.every={EVERY}",
            f"monitor.taps.output_norm.sites=[{','.join(SITES)}]",
            # All of the batch.
            "monitor.taps.max_logit.queries=1024",
            "monitor.taps.max_logit.sequences=16",
        ],
    )
    outcome, values = trained(cfg, folder)
    curve = {"loss": values["train/loss"], "grad_norm": values["train/grad_norm"]}
    curve["max_logit"] = values["attention/max_logit"]
    for site in SITES:
        layers = [values[f"norm/{site}/layer_{layer:02d}"] for layer in range(run.num_layers)]
        curve[f"norm/{site}"] = np.array(layers).T
    return {**run._asdict(), **ended(outcome), **curve}


def ended(outcome: Outcome) -> dict[str, Any]:
    """What is stored of an outcome."""
    val_loss = np.nan if outcome.val_loss is None else outcome.val_loss
    return {"reason": outcome.reason or "", "step": outcome.step, "val_loss": val_loss}


def trained(cfg: DictConfig, folder: Path) -> tuple[Outcome, dict[str, list[float]]]:
    """Train as ``cfg`` says. Gives the outcome and what was logged: a value a step or a reading."""
    corpus, curves = open_corpus(cfg), Curves()
    module = build_module(cfg)
    watch = Watch(build_rules(OmegaConf.to_container(cfg.divergence, resolve=True), object))
    trial = Trial(cfg.lr, cfg.seed, folder, Facts(cfg.trainer.max_steps), watch=watch)
    data = TokenData(
        corpus,
        sequence_length=cfg.data.sequence_length,
        batch_size=cfg.data.batch_size,
        val_batches=cfg.data.val_batches,
        seed=cfg.seed,
        max_steps=cfg.trainer.max_steps,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=cfg.trainer.max_steps,
        max_epochs=-1,
        logger=curves,
        callbacks=[build_monitor(cfg), Report(trial, Trackers([])), StepSeed(cfg.seed)],
        limit_val_batches=cfg.data.val_batches,
        val_check_interval=cfg.trainer.max_steps + 1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=cfg.trainer.max_steps,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, data)
    val_loss = None
    if watch.final_verdict() is None:
        val_loss = trainer.validate(module, data, verbose=False)[0]["val/loss"]
    outcome = trial.outcome(Score(val_loss, corpus.unigram_entropy))
    return outcome, {key: list(its.values()) for key, its in curves.values.items()}


def packed() -> dict[str, dict[str, Any]]:
    """The runs that are packed already, by name."""
    if not CURVES.exists():
        return {}
    rows = np.load(CURVES)
    found = [{key: values[index] for key, values in rows.items()} for index in range(len(rows["norm"]))]
    return {Run(*(its[key].item() for key in Run._fields)).name: its for its in found}


def pack(found: Sequence[Mapping[str, Any]]) -> None:
    """All runs in one file, a row each: of every reading the largest value over layers; NaN after its end."""
    rows: dict[str, np.ndarray] = {}
    for key, first in found[0].items():
        if first.ndim == 0:
            rows[key] = np.array([its[key].item() for its in found])
            continue
        curves = [its[key] if its[key].ndim == 1 else its[key].max(axis=1) for its in found]
        rows[key] = np.full((len(found), max(map(len, curves))), np.nan, np.float32)
        for row, curve in zip(rows[key], curves, strict=True):
            row[: len(curve)] = curve
    np.savez_compressed(CURVES, **rows)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    register()
    quieten()
    torch.set_num_threads(1)
    folder = ROOT / "mlruns" / "curves"
    folder.mkdir(parents=True, exist_ok=True)
    known = packed()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for run in runs():
            path = folder / f"{run.name}.npz"
            if run.name in known:
                continue
            if not path.exists():
                curve = recorded(run, folder)
                np.savez(path.with_suffix(".part.npz"), **curve)
                path.with_suffix(".part.npz").rename(path)
                print(run.name, curve["reason"], curve["step"], f"{curve['val_loss']:.4f}", flush=True)
            known[run.name] = dict(np.load(path))
    pack([known[run.name] for run in runs()])


if __name__ == "__main__":
    main()
