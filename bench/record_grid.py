"""Runs a full grid once and writes down every outcome, for `search_replay.py` to search in.

A row a run, appended as it ends: started again, it goes on with what is missing. Two workers of one thread
take about ten minutes for a variant with twelve rungs and three seeds.
"""

import argparse
import csv
import itertools
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from _harness import ROOT
from redline.config import register
from redline.search import Trial
from redline.search.workers.pool import Ended, Pool, Slot
from redline.search.workers.tasks import run_trial
from redline.stability import rule_specs
from redline.training.trainable import Training

TABLE = ROOT / "bench" / "grid_tiny.csv"
FIELDS = ["norm", "max_steps", "seed", "lr", "reason", "step", "optimizer_steps", "val_loss", "seconds"]


def rows_of(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def missing(arguments: argparse.Namespace, ladder: list[float]) -> list[dict[str, Any]]:
    """The runs that the table lacks, those of the first seed first."""
    known = {
        (r["norm"], int(r["max_steps"]), int(r["seed"]), float(r["lr"])) for r in rows_of(arguments.table)
    }
    grid = itertools.product(arguments.max_steps, arguments.seeds, arguments.norms, ladder)
    return [
        {"norm": norm, "max_steps": steps, "seed": seed, "lr": lr}
        for steps, seed, norm, lr in grid
        if (norm, steps, seed, lr) not in known
    ]


def trial_of(run: dict[str, Any], folder: Path) -> tuple[Training, Trial, dict[str, Any]]:
    """What `run_trial` is told."""
    cfg = compose(
        "train",
        [
            f"norm={run['norm']}",
            f"trainer.max_steps={run['max_steps']}",
            "trainer.keep_checkpoint=false",
            "tracker=none",
        ],
    )
    place = folder / "-".join(str(value) for value in run.values())
    training = Training(cfg)
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    trial = Trial(run["lr"], run["seed"], place, training.facts(), threads=1, search="grid")
    return training, trial, rule_specs(plain["divergence"])


def append(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--norms", nargs="+", required=True)
    parser.add_argument("--max-steps", nargs="+", type=int, default=[250])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    register()
    pool = Pool([Slot(index, None) for index in range(arguments.workers)], Training.preload)
    folder = ROOT / "mlruns" / "grid"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        todo = missing(arguments, list(compose("train").search.ladder))
        running: dict[int, tuple[dict[str, Any], float]] = {}
        while todo or running:
            for slot in pool.slots:
                if slot.free and todo:
                    run = todo.pop(0)
                    running[slot.index] = (run, time.monotonic())
                    pool.start(slot, run_trial, trial_of(run, folder), folder / "log.txt")
            for slot, message in pool.poll(1.0):
                if not isinstance(message, Ended):
                    continue
                run, started = running.pop(slot.index)
                if message.result is None:
                    raise SystemExit(
                        f"{run}: {message.crash or message.user_error}; see {folder / 'log.txt'}"
                    )
                row = {**asdict(message.result), **run, "seconds": round(time.monotonic() - started, 1)}
                append(arguments.table, row)
                print(f"{len(todo)} to go:", *(row[key] for key in FIELDS), flush=True)


if __name__ == "__main__":
    main()
