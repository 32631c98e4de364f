"""How narrow an interval the search gets from a recorded grid, and at what share of the grid's steps.

Three seeds of every recorded variant, and all choices of three where more were recorded. Beside the search
stand runs that are chosen otherwise and read by the same curve: in random order, by Optuna's TPE, and a plain
grid of evenly spaced rungs; each is read once it has spent as many steps as the search. The truth is the
whole grid, read by the same curve.
"""

import argparse
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
import optuna

from _harness import at_least, at_most, finish, measured
from _replay import FLOOR, TABLES, Grid, crossing, question, read_grids, steps_of
from redline.search.policy.edges import interval
from redline.search.policy.points import Point
from redline.search.policy.question import Question
from redline.search.policy.state import SearchState, search_state
from redline.stability import Outcome

SEEDS = 3
Order = Callable[["Replay", random.Random], Iterator[Point]]


@dataclass(frozen=True, eq=False)
class Replay:
    """A grid with some of its seeds."""

    grid: Grid
    seeds: tuple[int, ...]
    floor: float

    @property
    def ladder(self) -> tuple[float, ...]:
        return self.grid.ladder

    @property
    def grid_steps(self) -> int:
        return len(self.ladder) * len(self.seeds) * self.grid.max_steps

    def question(self, criterion: str) -> Question:
        return question(self.ladder, len(self.seeds), criterion=criterion)

    def run(self, point: Point) -> Outcome:
        return self.grid.runs[self.ladder[point.rung], self.seeds[point.seed]]

    def read(self, points: Sequence[Point]) -> SearchState:
        """What the curve says of these runs."""
        seen = {point: self.run(point) for point in points}
        return search_state(self.question("useful"), seen, max_steps=self.grid.max_steps)

    @property
    def points(self) -> list[Point]:
        return [Point(rung, seed) for rung in range(len(self.ladder)) for seed in range(len(self.seeds))]


@dataclass(frozen=True)
class Answer:
    """Of one way to choose runs: what it says, and the share of the grid's steps that it cost."""

    state: SearchState
    share: float

    @property
    def ratio(self) -> float:
        """The interval's upper end over its lower."""
        low, high = interval(np.minimum(self.state.useful_S, self.state.its.x_X[-1]))
        return math.exp(high - low)

    @property
    def edge(self) -> float:
        return float(np.median(self.state.useful_S))


def searched(replay: Replay, criterion: str) -> Answer:
    state = replay.grid.search(replay.question(criterion), replay.seeds)
    return Answer(state, steps_of(state) / replay.grid_steps)


def chosen(order: Order, replay: Replay, share: float, luck: random.Random) -> Answer:
    """The runs of ``order``, as many as cost this share."""
    points: list[Point] = []
    spent = 0.0
    for point in order(replay, luck):
        cost = replay.run(point).optimizer_steps / replay.grid_steps
        if points and spent + cost > share:
            break
        points.append(point)
        spent += cost
    return Answer(replay.read(points), spent)


def at_random(replay: Replay, luck: random.Random) -> Iterator[Point]:
    yield from luck.sample(replay.points, len(replay.points))


def evenly(replay: Replay, luck: random.Random) -> Iterator[Point]:
    """Rungs from coarse to fine, each with all seeds."""
    rungs, told = len(replay.ladder), set()
    for parts in range(2, 2 * rungs):
        for part in range(1, parts):
            rung = round((rungs - 1) * part / parts)
            if rung not in told:
                told.add(rung)
                yield from (Point(rung, seed) for seed in range(len(replay.seeds)))


def tpe(replay: Replay, luck: random.Random) -> Iterator[Point]:
    """Optuna's sampler of rungs, seeds in turn; a run's value is its LR, 0 where it is not useful."""
    sampler = optuna.samplers.TPESampler(seed=luck.randrange(2**31))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    seen: dict[Point, Outcome] = {}
    for _ in range(20 * len(replay.points)):
        trial = study.ask()
        rung = trial.suggest_int("rung", 0, len(replay.ladder) - 1)
        left = [seed for seed in range(len(replay.seeds)) if Point(rung, seed) not in seen]
        point = Point(rung, left[0] if left else 0)
        outcome = replay.run(point)
        smaller = [
            its.val_loss for its in seen.values() if its.val_loss is not None and its.value <= outcome.value
        ]
        loss = replay.floor if outcome.val_loss is None else outcome.val_loss
        best = min([*smaller, loss])
        useful = not outcome.diverged and loss - best < 0.25 * (replay.floor - best)
        study.tell(trial, outcome.value if useful else 0.0)
        if left:
            seen[point] = outcome
            yield point


def replays(grids: Sequence[Grid], floor: float) -> list[Replay]:
    return [
        Replay(grid, seeds, floor)
        for grid in grids
        for seeds in itertools.combinations(grid.seeds, min(SEEDS, len(grid.seeds)))
    ]


def by_variant(
    found: Sequence[tuple[Replay, Answer]], value: Callable[[Replay, Answer], float]
) -> list[float]:
    """The median over a variant's choices of seeds, for each variant."""
    names = dict.fromkeys(replay.grid.norm for replay, _ in found)
    return [median(value(*its) for its in found if its[0].grid.norm == name) for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, help="judge this recorded grid alone")
    parser.add_argument("--max-steps", type=int, default=250)
    parser.add_argument("--floor", type=float, default=FLOOR, help="nats")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tables = TABLES if arguments.table is None else [arguments.table]
    all_replays = replays(read_grids(tables, arguments.max_steps, arguments.floor), arguments.floor)
    print(f"{len(all_replays)} replays of {len({its.grid.norm for its in all_replays})} variants")
    whole = {its: its.grid.whole(its.question("useful"), its.seeds) for its in all_replays}
    ours = [(replay, searched(replay, "useful")) for replay in all_replays]
    ways: dict[str, list[tuple[Replay, Answer]]] = {
        "ours": ours,
        "ours, both edges": [(replay, searched(replay, "both")) for replay in all_replays],
    }
    for name, order in {"random": at_random, "tpe": tpe, "plain grid": evenly}.items():
        ways[name] = [
            (replay, chosen(order, replay, its.share, random.Random(number)))
            for number, (replay, its) in enumerate(ours)
        ]

    def rungs_off(replay: Replay, answer: Answer) -> float:
        """Between the rung below the edge and that of the whole grid."""
        x = np.log(replay.ladder)
        truth = float(np.median(whole[replay].useful_S))
        return abs(int(np.searchsorted(x, answer.edge)) - int(np.searchsorted(x, truth)))

    scores = {}
    for name, found in ways.items():
        ratio = median(by_variant(found, lambda replay, its: its.ratio))
        share = fmean(by_variant(found, lambda replay, its: its.share))
        off = [rungs_off(*its) for its in found]
        scores[name] = ratio, share, fmean(its == 0 for its in off), fmean(its <= 1 for its in off)
        print(
            f"{name:18} interval x{ratio:.2f} at {share:.1%} of the steps; {scores[name][2]:.1%} on the rung "
            f"of the whole grid, {scores[name][3]:.1%} within one"
        )
    for name in dict.fromkeys(replay.grid.norm for replay in all_replays):
        mine = [found for found in ours if found[0].grid.norm == name]
        edge = math.exp(median(answer.edge for _, answer in mine))
        own = math.exp(median(crossing(replay.grid, replay.seeds, arguments.floor) for replay, _ in mine))
        print(
            f"  {name:14} {edge:.3g} x{median(answer.ratio for _, answer in mine):.2f} at "
            f"{fmean(answer.share for _, answer in mine):.0%}; between the grid's rungs on a line: {own:.3g}"
        )
    ratio, share, exact, near = scores["ours"]
    finish(
        "search_replay",
        {
            "interval": at_most(1.6, ratio),
            "share_of_grid_steps": at_most(0.25, share),
            "exact": at_least(0.9, exact),
            "within_one_rung": at_least(0.99, near),
            "interval_over_random": measured(ratio / scores["random"][0]),
            "interval_over_tpe": measured(ratio / scores["tpe"][0]),
            "interval_over_plain_grid": measured(ratio / scores["plain grid"][0]),
        },
    )


if __name__ == "__main__":
    main()
