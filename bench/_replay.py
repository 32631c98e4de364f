"""Searches in recorded or made-up runs: what the coordinator does, one run after the other."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from redline.config import shipped
from redline.search.options import Options
from redline.search.policy.points import Point
from redline.search.policy.question import Question
from redline.search.policy.state import SearchState, search_state
from redline.stability import Outcome

BENCH = Path(__file__).parent
TABLES = [BENCH / "grid_tiny.csv", BENCH / "grid_tiny_unseen.csv"]
FLOOR = 5.681  # nats: the unigram entropy of the Shakespeare corpus at vocab 1024
LOST = 0.25


def question(ladder: Sequence[float], seeds: int, **changes: Any) -> Question:
    """What a search asks by default, on a ladder that does not grow: nothing was recorded beyond it."""
    told: Any = OmegaConf.to_container(shipped("hydra/sweeper/max_lr"))
    told |= {"seeds": seeds, "extend": False, **changes}
    return Options(**{option.name: told[option.name] for option in fields(Options)}).question(tuple(ladder))


def replay(question: Question, run: Callable[[Point], Outcome], max_steps: int) -> SearchState:
    """A search with one worker, to its end."""
    seen: dict[Point, Outcome] = {}
    while not (state := search_state(question, seen, max_steps=max_steps)).answered:
        seen[state.next[0]] = run(state.next[0])
    return state


def steps_of(state: SearchState) -> int:
    return sum(its.optimizer_steps for its in state.outcomes.values())


@dataclass(frozen=True)
class Grid:
    """One variant's recorded runs: of every rung and every seed."""

    norm: str
    ladder: tuple[float, ...]
    seeds: tuple[int, ...]
    runs: Mapping[tuple[float, int], Outcome]
    max_steps: int

    def mean_curve(self, seeds: Sequence[int], floor: float) -> np.ndarray:
        """At every rung, in nats; a diverged run, and one above the floor, counts as at the floor."""
        losses = [[self.runs[lr, seed].val_loss for seed in seeds] for lr in self.ladder]
        diverged = [[self.runs[lr, seed].diverged for seed in seeds] for lr in self.ladder]
        known = np.array([[floor if its is None else its for its in row] for row in losses])
        return np.where(diverged, floor, np.minimum(known, floor)).mean(axis=1)

    def search(self, question: Question, seeds: Sequence[int]) -> SearchState:
        return replay(question, lambda its: self.runs[self.ladder[its.rung], seeds[its.seed]], self.max_steps)

    def whole(self, question: Question, seeds: Sequence[int]) -> SearchState:
        """What all runs of these seeds say."""
        seen = {
            Point(rung, number): self.runs[lr, seed]
            for rung, lr in enumerate(self.ladder)
            for number, seed in enumerate(seeds)
        }
        return search_state(question, seen, max_steps=self.max_steps)


def crossing(grid: Grid, seeds: Sequence[int], floor: float, lost_share: float = LOST) -> float:
    """The log of the LR at which the seeds' mean curve crosses the lost share, between two rungs on a line.

    NaN where it does not.
    """
    mean = grid.mean_curve(seeds, floor)
    best = np.minimum.accumulate(mean)
    lost = (mean - best) / np.maximum(floor - best, 1e-9)
    above = int(np.argmax(lost >= lost_share))
    if lost[above] < lost_share:
        return float("nan")
    x = np.log(grid.ladder)
    part = (lost_share - lost[above - 1]) / (lost[above] - lost[above - 1])
    return float(x[above - 1] + part * (x[above] - x[above - 1]))


def read_grids(paths: Sequence[Path], max_steps: int, floor: float) -> list[Grid]:
    """The variants of tables, each with the seeds that have every rung. Columns as in ``grid_tiny.csv``."""
    found: dict[str, dict[tuple[float, int], Outcome]] = {}
    for path in paths:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if int(row["max_steps"]) == max_steps:
                    its = outcome_of(row, floor)
                    found.setdefault(row["norm"], {})[its.value, its.seed] = its
    grids = []
    for norm, runs in found.items():
        ladder = tuple(sorted({lr for lr, _ in runs}))
        seeds = sorted({seed for _, seed in runs})
        whole = tuple(seed for seed in seeds if all((lr, seed) in runs for lr in ladder))
        if whole:
            grids.append(Grid(norm, ladder, whole, runs, max_steps))
    if not grids:
        raise SystemExit(f"{paths}: hold no whole grid of {max_steps} steps; record_grid.py makes one")
    return grids


def outcome_of(row: Mapping[str, str], floor: float) -> Outcome:
    return Outcome(
        value=float(row["lr"]),
        seed=int(row["seed"]),
        reason=row["reason"] or None,
        step=int(row["step"]),
        optimizer_steps=int(row["optimizer_steps"]),
        val_loss=float(row["val_loss"]) if row["val_loss"] else None,
        initial_loss=float("nan"),
        train_loss=float("nan"),
        floor=floor,
    )
