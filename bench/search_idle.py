"""How busy the search keeps its workers: 4 and 64 of them, simulated, with runs as long as the recorded ones.

The same search with a barrier per batch stands beside it: as many runs as there are workers, then a wait for
the slowest. Busy counts until the last round begins: the last runs, as many as there are workers. Beside it
stands the share until the last run of all begins: many workers have less to run by then than they could.
"""

import argparse
import heapq
import random
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from _harness import at_least, finish
from record_grid import TABLE
from redline.search.policy.state import SearchState, search_state, wanted
from redline.search.policy.verdicts import Point
from search_replay import QUESTION, RULES, Outcomes, Replay, recorded

START_UP = 1.0  # seconds of a run in which nothing trains yet
SECONDS_PER_STEP = 0.1


@dataclass
class Clock:
    """A simulated search: what is known, what runs, and how long workers were busy."""

    replays: dict[str, Replay]
    luck: random.Random
    seen: dict[str, Outcomes] = field(default_factory=dict)
    running: dict[tuple[str, Point], float] = field(default_factory=dict)  # its start
    now: float = 0.0
    busy: list[tuple[float, float]] = field(default_factory=list)
    wasted: float = 0.0  # seconds of cancelled runs
    starts: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seen = {name: {} for name in self.replays}
        self.ends: list[tuple[float, str, Point]] = []
        self._states: dict[str, SearchState] = {}

    def states(self, speculative: int) -> dict[str, SearchState]:
        """Those of variants in which nothing happened since are not worked out again."""
        for name in self.replays.keys() - self._states.keys():
            running = {point: None for its, point in self.running if its == name}
            self._states[name] = search_state(
                QUESTION, RULES, self.seen[name], running, speculative=speculative
            )
        return {name: self._states[name] for name in self.replays}

    def start(self, name: str, point: Point) -> None:
        steps = self.replays[name].grid[point].optimizer_steps
        # No two machines are equally fast, nor one at all times.
        seconds = START_UP + steps * SECONDS_PER_STEP * self.luck.uniform(0.8, 1.2)
        self.running[name, point] = self.now
        self.starts.append(self.now)
        self._states.pop(name)
        heapq.heappush(self.ends, (self.now + seconds, name, point))

    def wait_for_one(self) -> None:
        """Until the next run ends; then those that it has made unneeded end too."""
        while True:
            self.now, name, point = heapq.heappop(self.ends)
            if (name, point) in self.running:
                break
        self.seen[name][point] = self.replays[name].grid[point]
        self._end(name, point)
        for its, other in list(self.running):
            if its == name and search_state(QUESTION, RULES, self.seen[name]).unneeded(other):
                self.wasted += self.now - self.running[its, other]
                self._end(its, other)

    def _end(self, name: str, point: Point) -> None:
        self._states.pop(name, None)
        self.busy.append((self.running.pop((name, point)), self.now))


def without_barrier(clock: Clock, workers: int) -> None:
    while True:
        while len(clock.running) < workers:
            free = wanted(clock.states(workers))
            if not free:
                break
            clock.start(*free[0])
        if not clock.running:
            return
        clock.wait_for_one()


def with_barrier(clock: Clock, workers: int) -> None:
    while True:
        batch = []
        while len(clock.running) < workers:
            free = wanted(clock.states(workers))
            if not free:
                break
            clock.start(*free[0])
            batch.append(free[0])
        if not batch:
            return
        while clock.running:
            clock.wait_for_one()


def busy_share(clock: Clock, workers: int, last: int) -> float:
    """Until the ``last`` runs begin."""
    until = clock.starts[max(0, len(clock.starts) - last)]
    spent = sum(min(end, until) - min(start, until) for start, end in clock.busy)
    return spent / (workers * until) if until else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--max-steps", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    every = recorded(arguments.table, arguments.max_steps, short_run_steps=0)
    few = {its.name: its for its in every}
    # The recorded variants with their seeds in every order.
    many = {f"{its.name} {index}": its for index, its in enumerate(every)}
    bars = {}
    for workers, replays in ((4, few), (64, few), (64, many)):
        for name, way in (("no barrier", without_barrier), ("barrier per batch", with_barrier)):
            clocks = []
            for luck in range(arguments.rounds):
                clock = Clock(replays, random.Random(luck))
                way(clock, workers)
                clocks.append(clock)
            share, to_the_last = (
                fmean(busy_share(clock, workers, last) for clock in clocks) for last in (workers, 1)
            )
            took = fmean(clock.now for clock in clocks)
            runs = fmean(sum(map(len, clock.seen.values())) for clock in clocks)
            wasted = fmean(clock.wasted for clock in clocks)
            print(
                f"{workers} workers, {len(replays)} variants, {name}: busy {share:.1%} until the last round, "
                f"{to_the_last:.1%} until the last start, answered after {took:.0f} s, "
                f"{runs:.0f} runs finished, {wasted:.0f} s in cancelled ones",
                flush=True,
            )
            if way is without_barrier:
                bars[f"{workers}_workers_{len(replays)}_variants/busy"] = at_least(0.95, share)
    finish("search_idle", bars)


if __name__ == "__main__":
    main()
