"""How often the 90% interval of an edge holds the truth, and how often the gate calls an unchanged one worse.

Simulated searches: made-up variants of several families of curves, on ladders of several ratios, with one and
three seeds. In a cell (a family, a ratio, a number of seeds) each variant differs: where its edge lies, how
steep it is, how much seeds differ (0.05 to 0.5 in log LR, even in its log), how loud runs are. The truth is
the crossing of the curve averaged over all seeds. Each variant is searched twice, with other seeds, for the
gate.

Recorded grids: searches with some of the seeds, held against the whole grid of the others.
"""

import argparse
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from statistics import fmean, median

import numpy as np

from _harness import at_least, at_most, finish, measured
from _made_up_curves import FAMILIES, STEPS, MadeUp, made_up
from _replay import FLOOR, TABLES, Grid, question, read_grids, replay
from redline.search.policy.edges import interval
from redline.search.policy.points import Point
from redline.search.policy.state import SearchState
from redline.stability import Outcome

RATIOS = (1.05, 1.1, 1.3, 1.6, 2.0)
SEEDS = (1, 3)
LOW, HIGH = 0.02, 3.0
_OFFSET = 0.02  # standard deviation of a seed's curve up or down, in lost shares
_FREEDOM = 2.5  # of Student's t, for noise with heavy tails


@dataclass(frozen=True)
class Cell:
    family: str
    ratio: float
    seeds: int

    @property
    def ladder(self) -> tuple[float, ...]:
        rungs = int(math.log(HIGH / LOW) / math.log(self.ratio) + 1e-9) + 1
        return tuple(float(f"{LOW * self.ratio**rung:.6g}") for rung in range(rungs))


@dataclass(frozen=True)
class Found:
    """Of one search: whether the intervals held the truth, and the edges' samples."""

    useful: bool
    missed_low: bool  # the truth lies above the interval
    stable: bool
    log_width: float
    runs: int
    samples: np.ndarray


def searched(its: MadeUp, cell: Cell, luck: random.Random) -> SearchState:
    shifts = [luck.gauss(0, its.spread) for _ in range(cell.seeds)]
    offsets = [luck.gauss(0, _OFFSET) for _ in range(cell.seeds)]
    ladder = cell.ladder

    def run(point: Point) -> Outcome:
        lr, shift = ladder[point.rung], shifts[point.seed]
        x = math.log(lr)
        if x > its.stable + shift:
            steps = round(STEPS * luck.uniform(0.2, 0.5))
            return Outcome(lr, point.seed, "blow_up", steps - 1, steps, None, 1.2, 1.2, floor=1.0)
        noise = luck.gauss(0, its.noise)
        if its.family == "heavy":
            noise /= math.sqrt(luck.gammavariate(_FREEDOM / 2, 2 / _FREEDOM))
        loss = float(its.shape(np.array([x - its.at - shift]))[0]) + offsets[point.seed] + noise
        reason = "no_learning" if loss >= 1 else None
        return Outcome(lr, point.seed, reason, STEPS - 1, STEPS, loss, 1.2, 1.2, floor=1.0)

    return replay(question(ladder, cell.seeds), run, STEPS)


def simulated(task: tuple[Cell, int]) -> tuple[Cell, list[Found]]:
    """One variant, searched twice."""
    cell, number = task
    luck = random.Random(f"{cell} {number}")
    its = made_up(cell.family, luck, math.log(cell.ladder[0]), math.log(cell.ladder[-1]))
    found = []
    for _ in range(2):
        state = searched(its, cell, luck)
        low, high = interval(state.useful_S)
        first, last = interval(state.stable_S)
        found.append(
            Found(
                low <= its.useful <= high,
                its.useful > high,
                first <= its.stable <= last,
                high - low,
                len(state.outcomes),
                np.sort(state.useful_S),
            )
        )
    return cell, found


def called_worse(first: np.ndarray, second: np.ndarray, confidence: float) -> float:
    """Of a pair, held against each other both ways: how often the gate calls one worse."""
    chance = float((second[:, None] < first).mean())
    return fmean([chance >= confidence, 1 - chance >= confidence])


def simulations(arguments: argparse.Namespace) -> dict[str, object]:
    from redline.gate.__main__ import CONFIDENCE

    cells = [Cell(*its) for its in itertools.product(arguments.families, arguments.ratios, arguments.seeds)]
    tasks = [(cell, number) for number in range(math.ceil(arguments.searches / 2)) for cell in cells]
    found: dict[Cell, list[list[Found]]] = {cell: [] for cell in cells}
    with Pool(arguments.processes) as pool:
        for cell, pair in pool.imap_unordered(simulated, tasks, chunksize=8):
            found[cell].append(pair)
    held, worse = [], []
    print("family ratio seeds | held (truth below, above) | stable held | interval | runs | called worse")
    for cell, pairs in found.items():
        each = [its for pair in pairs for its in pair]
        held.append(fmean(its.useful for its in each))
        worse.append(fmean(called_worse(*(its.samples for its in pair), CONFIDENCE) for pair in pairs))
        above = fmean(its.missed_low for its in each)
        print(
            f"{cell.family:6} {cell.ratio:4} {cell.seeds} | {held[-1]:5.1%} "
            f"({1 - held[-1] - above:4.1%}, {above:4.1%}) | {fmean(its.stable for its in each):5.1%} | "
            f"x{math.exp(median(its.log_width for its in each)):.2f} | "
            f"{fmean(its.runs for its in each):4.1f} | {worse[-1]:.1%}",
            flush=True,
        )
    print(f"all: {fmean(held):.1%}")
    return {
        "simulated/lowest_cell": at_least(0.85, min(held)),
        "simulated/highest_cell": at_most(0.97, max(held)),
        "simulated/all_at_least": at_least(0.88, fmean(held)),
        "simulated/all_at_most": at_most(0.93, fmean(held)),
        "simulated/called_worse_at_most": at_most(0.05, max(worse)),
    }


def recorded(grids: Sequence[Grid], seeds: int) -> dict[str, object]:
    """Searches with every choice of ``seeds`` seeds, held against the whole grid of those left out, which is
    read by the same curve.

    What was left out is a few seeds too, and knows the truth to within its own interval. So the 90% interval
    of the ratio of both is to hold 1; how often the search's alone holds the other's middle stands beside it.
    """
    held, plain, widths = [], [], []
    luck = np.random.default_rng(0)
    for grid in grids:
        for chosen in itertools.combinations(grid.seeds, seeds):
            rest = [seed for seed in grid.seeds if seed not in chosen]
            if not rest:
                continue
            edges = np.minimum(
                grid.search(question(grid.ladder, seeds), chosen).useful_S, math.log(grid.ladder[-1]) + 1
            )
            others = grid.whole(question(grid.ladder, len(rest)), rest).useful_S
            low, high = interval(luck.permutation(edges) - others)
            held.append(low <= 0 <= high)
            low, high = interval(edges)
            plain.append(low <= np.median(others) <= high)
            widths.append(high - low)
    if not held:
        return {}
    print(
        f"recorded, {seeds} seed(s), {len(held)} searches: interval x{math.exp(median(widths)):.2f}; the "
        f"ratio to the seeds left out holds 1 in {fmean(held):.1%}, the interval has their edge in "
        f"{fmean(plain):.1%}"
    )
    return {
        f"recorded/{seeds}_seeds": at_least(0.85, fmean(held)),
        f"recorded/{seeds}_seeds_held_the_others_middle": measured(fmean(plain)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=300, help="of each cell")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", type=Path, help="judge this recorded grid alone")
    parser.add_argument("--max-steps", type=int, default=250)
    parser.add_argument("--floor", type=float, default=FLOOR, help="nats")
    arguments = parser.parse_args()
    tables = TABLES if arguments.table is None else [arguments.table]
    grids = read_grids(tables, arguments.max_steps, arguments.floor)
    bars: dict[str, object] = {}
    for seeds in SEEDS:
        bars |= recorded(grids, seeds)
    if arguments.table is None:
        bars |= simulations(arguments)
    finish("calibration", bars)


if __name__ == "__main__":
    main()
