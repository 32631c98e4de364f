"""How often the stability gate calls a variant worse that is not: the same one, searched with another seed.

Every variant of `grid_tiny.csv` is searched with each of its three seeds alone, and every answer held against
the two others: no such pair should differ. Beside them pairs that should: a variant against one whose edge,
by the vote of all three seeds, lies at least four rungs lower.
"""

import itertools
from dataclasses import dataclass
from statistics import fmean, variance

from _harness import at_least, at_most, finish
from record_grid import TABLE
from redline.gate.__main__ import CONFIDENCE, TOLERANCE
from redline.gate.compare import compare_loss, compare_lr, edge_interval
from redline.search.policy.answer import variant_result
from redline.search.policy.state import Question, search_state
from redline.search.policy.verdicts import Point
from redline.search.result import VariantResult
from redline.search.trainable import Facts
from search_replay import LADDER, RULES, SWEEPER, Outcomes, Replay, recorded


@dataclass(frozen=True)
class Searched:
    norm: str
    edge: int  # the rung, by the vote of all seeds
    result: VariantResult  # of a search with one seed


def search(grid: Outcomes) -> VariantResult:
    question, seen = Question(LADDER, 1, SWEEPER.vote, SWEEPER.doubt), {}
    while not (now := search_state(question, RULES, seen)).answered:
        assert now.plan.needed is not None
        seen[now.plan.needed] = grid[now.plan.needed]
    return variant_result(now, Facts(max_steps=250))


def alone(replay: Replay) -> Searched:
    """With the first seed of the replay's order."""
    grid = {Point(point.rung, 0): its for point, its in replay.grid.items() if point.seed == 0}
    return Searched(replay.name, replay.edge, search(grid))


def seed_noise(replays: list[Replay]) -> tuple[float, int]:
    """The standard deviation of the final loss between seeds, in nats, and over how many cells it is pooled:
    those at a variant's edge or below it.
    """
    cells = [
        [replay.grid[Point(rung, seed)].val_loss for seed in range(3)]
        for replay in replays
        for rung in range(replay.edge + 1)
    ]
    return fmean(variance(losses) for losses in cells) ** 0.5, len(cells)


def point_below(before: VariantResult, now: VariantResult) -> bool:
    """The simpler definition that was not taken: the new rung lies below the baseline's interval."""
    was = edge_interval(before, LADDER)
    return was is not None and (now.max_stable_lr or 0.0) < was[0]


def main() -> None:
    # Every second order of three seeds begins with another one.
    replays = recorded(TABLE, 250, 50)
    noise, cells = seed_noise(list({replay.name: replay for replay in replays}.values()))
    print(f"between seeds the loss differs by {noise:.3f} nats (standard deviation, {cells} stable cells)")
    searched = [alone(replay) for replay in replays[::2]]
    same, lower = [], []
    for a, b in itertools.permutations(searched, 2):
        if a.norm == b.norm:
            same.append((a.result, b.result))
        elif a.edge - b.edge >= 4:
            lower.append((a.result, b.result))
    at_one_rate = [pair for pair in same if pair[0].max_stable_lr == pair[1].max_stable_lr]
    lr_alarms, simple_alarms, found, simple_found = (
        fmean(is_worse(*pair) for pair in pairs)
        for pairs, is_worse in (
            (same, lambda a, b: compare_lr(a, b, LADDER).worse),
            (same, point_below),
            (lower, lambda a, b: compare_lr(a, b, LADDER).worse),
            (lower, point_below),
        )
    )
    loss_alarms = fmean(compare_loss(a, b, TOLERANCE, CONFIDENCE).worse for a, b in same)
    print(f"{len(same)} pairs of one variant with two seeds, {len(at_one_rate)} with the same max stable LR;")
    print(f"{len(lower)} pairs of variants whose edges are four rungs or more apart")
    print(f"LR called worse: {lr_alarms:.1%} of the first, {found:.1%} of the second")
    print(f"  where the new rung below the interval is enough: {simple_alarms:.1%} and {simple_found:.1%}")
    print(f"loss called worse: {loss_alarms:.1%} of the first")
    bars = {"lr/false_alarms": at_most(0.05, lr_alarms), "lr/found": at_least(0.9, found)}
    finish("gate_noise", {**bars, "loss/false_alarms": at_most(0.1, loss_alarms)})


if __name__ == "__main__":
    main()
