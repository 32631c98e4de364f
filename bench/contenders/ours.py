"""The product's own run: Hydra composes it, Lightning trains it; tracker, taps, rules at their defaults."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from _harness import ROOT, Cell, Pace


def train(cell: Cell, pace: Pace, tracker: str = "mlflow", overrides: Sequence[str] = ()) -> None:
    """``tracker`` names a file of conf/tracker/; the time in its calls is the turn's ``inside``."""
    from redline.search import Facts, Trial
    from redline.stability import Watch, build_rules
    from redline.training.run import run
    from redline.training.trackers.mlflow import MLFlowOutboxLogger

    cfg = composed(cell, tracker, overrides)
    for method in ("log_metrics", "log_arrays"):
        setattr(MLFlowOutboxLogger, method, pace.timed(getattr(MLFlowOutboxLogger, method)))
    rules = build_rules(OmegaConf.to_container(cfg.divergence, resolve=True), object)
    watch = Watch(rules, lambda progress: pace.step_done())
    facts = Facts(cfg.trainer.max_steps)
    run(cfg, Trial(cfg.lr, cfg.seed, Path.cwd() / "run", facts, tags={"norm": "baseline"}, watch=watch))


def composed(cell: Cell, tracker: str = "none", overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration of a run that trains ``cell``."""
    from redline.config import register

    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(
            "train",
            [
                f"model={cell.model}",
                f"tracker={tracker}",
                f"trainer.precision={cell.precision.replace('bf16', 'bf16-mixed')}",
                "trainer.allow_emulated=true",
                # Longer than any bench, and gentle enough that no rule ends it.
                "trainer.max_steps=1000000",
                "lr=0.003",
                *overrides,
            ],
        )
