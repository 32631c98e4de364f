"""How busy the search keeps its workers: 4 and 64 of them, simulated, with runs as long as the recorded ones.

The same search with a barrier per batch stands beside it: as many runs as there are workers, then a wait for
the slowest. Busy counts until the last round begins: the last runs, as many as there are workers. Beside it
stands the share until the last run of all begins: many workers have less to run by then than they could.

A run is cancelled once its variant is answered. Nothing is cut, and variants do not help each other.
"""

import argparse
import heapq
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from statistics import fmean

from _harness import Bar, at_least, finish
from _replay import FLOOR, TABLES, Grid, question, read_grids
from redline.search.policy.points import Point
from redline.search.policy.state import SearchState, search_state, wanted
from redline.stability import Outcome

MAX_STEPS, SEEDS = 250, 3
START_UP = 1.0  # seconds of a run in which nothing trains yet
SECONDS_PER_STEP = 0.1


@dataclass(frozen=True, eq=False)
class Variant:
    """A recorded grid, and the order of its seeds."""

    grid: Grid
    seeds: tuple[int, ...]

    def outcome(self, point: Point) -> Outcome:
        return self.grid.runs[self.grid.ladder[point.rung], self.seeds[point.seed]]

    @cache  # noqa: B019  # the same variants are searched in several rounds
    def state(self, ended: frozenset[Point], running: frozenset[Point], workers: int) -> SearchState:
        return search_state(
            question(self.grid.ladder, SEEDS),
            {point: self.outcome(point) for point in sorted(ended)},
            dict.fromkeys(sorted(running)),
            max_steps=MAX_STEPS,
            wanted=workers,
        )


@dataclass
class Clock:
    """A simulated search: what is known, what runs, and how long workers were busy."""

    variants: Mapping[str, Variant]
    workers: int
    luck: random.Random
    now: float = 0.0  # seconds, as all times here
    states: dict[str, SearchState] = field(default_factory=dict)
    running: dict[tuple[str, Point], float] = field(default_factory=dict)  # its start
    ends: list[tuple[float, str, Point]] = field(default_factory=list)
    busy: list[tuple[float, float]] = field(default_factory=list)
    wasted: float = 0.0  # in cancelled runs
    starts: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        nothing: frozenset[Point] = frozenset()
        for name, its in self.variants.items():
            self.states[name] = its.state(nothing, nothing, self.workers)

    def start_all(self) -> None:
        """A run on every free worker, as long as there are any to start.

        A state names runs as if those before them were running, so a start changes nothing else of it.
        """
        while len(self.running) < self.workers and (free := wanted(self.states)):
            name, point = free[0]
            state = self.states[name]
            rest = tuple(its for its in state.next if its != point)
            self.states[name] = replace(state, next=rest, running={**state.running, point: None})
            # No two machines are equally fast, nor one at all times.
            steps = self.variants[name].outcome(point).optimizer_steps * self.luck.uniform(0.8, 1.2)
            self.running[name, point] = self.now
            self.starts.append(self.now)
            heapq.heappush(self.ends, (self.now + START_UP + steps * SECONDS_PER_STEP, name, point))

    def wait_for_one(self) -> None:
        """Until the next run ends; where it answers its variant, that variant's others end too."""
        while True:
            self.now, name, point = heapq.heappop(self.ends)
            if (name, point) in self.running:
                break
        self._end(name, point)
        state = self.states[name]
        ended, running = {*state.outcomes, point}, {*state.running} - {point}
        state = self.variants[name].state(frozenset(ended), frozenset(running), self.workers)
        if state.answered:
            for other in running:
                self.wasted += self.now - self.running[name, other]
                self._end(name, other)
            state = replace(state, running={})
        self.states[name] = state

    def _end(self, name: str, point: Point) -> None:
        self.busy.append((self.running.pop((name, point)), self.now))

    def busy_share(self, last: int) -> float:
        """Until the ``last`` runs begin."""
        until = self.starts[max(0, len(self.starts) - last)]
        spent = sum(min(end, until) - min(start, until) for start, end in self.busy)
        return spent / (self.workers * until) if until else 1.0


def searched(clock: Clock, *, barrier: bool) -> Clock:
    while True:
        clock.start_all()
        if not clock.running:
            return clock
        clock.wait_for_one()
        while barrier and clock.running:
            clock.wait_for_one()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    rounds = parser.parse_args().rounds
    grids = read_grids(TABLES[:1], MAX_STEPS, FLOOR)
    few = {grid.norm: Variant(grid, grid.seeds[:SEEDS]) for grid in grids}
    # The recorded variants with their seeds in every order.
    many = {
        f"{grid.norm} {order}": Variant(grid, order)
        for grid in grids
        for order in itertools.permutations(grid.seeds[:SEEDS])
    }
    bars: dict[str, Bar] = {}
    for workers, variants in ((4, few), (64, few), (64, many)):
        for barrier in (False, True):
            clocks = [
                searched(Clock(variants, workers, random.Random(luck)), barrier=barrier)
                for luck in range(rounds)
            ]
            share, to_the_last = (fmean(clock.busy_share(last) for clock in clocks) for last in (workers, 1))
            runs = fmean(sum(len(its.outcomes) for its in clock.states.values()) for clock in clocks)
            print(
                f"{workers} workers, {len(variants)} variants, {'a' if barrier else 'no'} barrier per batch: "
                f"busy {share:.1%} until the last round, {to_the_last:.1%} until the last start, answered "
                f"after {fmean(clock.now for clock in clocks):.0f} s, {runs:.0f} runs finished, "
                f"{fmean(clock.wasted for clock in clocks):.0f} s in cancelled ones",
                flush=True,
            )
            if not barrier:
                bars[f"{workers}_workers_{len(variants)}_variants/busy"] = at_least(0.95, share)
    finish("search_idle", bars)


if __name__ == "__main__":
    main()
