"""Trains the runs that `cut.py` judges and stores their training loss, one value a step.

One process, one thread, a file a run: started again, it goes on with what is missing, and ends by packing all
of them into `cut_curves.npz`. What is packed is not trained again; without that file it takes about forty
minutes on one core.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from _harness import ROOT
from record_curves import ended, trained
from redline.config import register
from redline.training.environment import quieten

CURVES = ROOT / "bench" / "cut_curves.npz"
# Label, overrides, seed. The constants of the cut were set on none of them, nor on these seeds.
GROUPS: list[tuple[str, list[str], int]] = [
    ("qkv", ["norm=qkv"], 7),
    ("baseline", ["norm=baseline"], 7),
    ("qk_cap", ["norm=qk_cap"], 8),
    ("qk_fc", ["norm=qk_fc"], 8),
    ("soft_cap", ["norm=soft_cap"], 7),
    ("qk, independent decay", ["norm=qk", "optimizer=adamw_independent"], 7),
    ("qk, linear schedule", ["norm=qk", "schedule=linear"], 8),
    ("layer_scale", ["norm=layer_scale"], 8),
]
LADDER = (0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0)


class Run(NamedTuple):
    norm: str  # the group's label
    seed: int
    lr: float

    @property
    def name(self) -> str:
        return f"{self.norm.replace(', ', '-').replace(' ', '_')}-seed{self.seed}-lr{self.lr:g}"


def runs() -> Iterator[tuple[Run, list[str]]]:
    for label, overrides, seed in GROUPS:
        for lr in LADDER:
            yield Run(label, seed, lr), [*overrides, f"seed={seed}", f"lr={lr}"]


def recorded(run: Run, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    cfg = compose("train", [*overrides, "trainer.max_steps=250", "monitor=off"])
    outcome, values = trained(cfg, folder)
    return {**run._asdict(), **ended(outcome), "loss": np.array(values["train/loss"], np.float32)}


def packed() -> dict[Run, dict[str, Any]]:
    """The runs that are packed already."""
    if not CURVES.exists():
        return {}
    rows = dict(np.load(CURVES))
    keys = zip(*(rows[key].tolist() for key in Run._fields), strict=True)
    return {Run(*its): {key: values[index] for key, values in rows.items()} for index, its in enumerate(keys)}


def pack(found: Sequence[Mapping[str, Any]]) -> None:
    """All runs in one file, a row each; a loss is NaN after the run's end."""
    rows = {key: np.array([its[key] for its in found]) for key in (*Run._fields, "reason", "step")}
    rows["val_loss"] = np.array([its["val_loss"] for its in found], np.float32)
    rows["loss"] = np.full((len(found), max(len(its["loss"]) for its in found)), np.nan, np.float32)
    for row, its in zip(rows["loss"], found, strict=True):
        row[: len(its["loss"])] = its["loss"]
    np.savez_compressed(CURVES, **rows)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    register()
    quieten()
    torch.set_num_threads(1)
    folder = ROOT / "mlruns" / "cut_curves"
    folder.mkdir(parents=True, exist_ok=True)
    known = packed()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for run, overrides in runs():
            path = folder / f"{run.name}.npz"
            if run in known:
                continue
            if not path.exists():
                curve = recorded(run, overrides, folder)
                np.savez(path.with_suffix(".part.npz"), **curve)
                path.with_suffix(".part.npz").rename(path)
                print(run.name, curve["reason"], curve["step"], f"{curve['val_loss']:.4f}", flush=True)
            known[run] = dict(np.load(path))
    pack([known[run] for run, _ in runs()])


if __name__ == "__main__":
    main()
