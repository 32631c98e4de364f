"""How often the gate calls a variant worse that is not, and how often it finds one that is.

Recorded variants are searched with one seed and with three. Of a pair of one variant with other seeds neither
should be worse. Of a pair of variants whose useful edges lie at least a factor of four apart, by all recorded
seeds, the lower should be.
"""

import itertools
import math
from statistics import fmean

from _harness import Bar, at_least, at_most, finish
from _replay import FLOOR, TABLES, Grid, crossing, question, read_grids
from redline.gate.__main__ import CONFIDENCE, TOLERANCE
from redline.gate.compare import Edge, compare_edge, compare_loss, stable_edge, useful_edge
from redline.search.policy.answer import variant_result
from redline.search.result import VariantResult
from redline.search.trainable import Facts

APART = math.log(4)
MAX_STEPS = 250


def searched(grid: Grid, seeds: tuple[int, ...]) -> VariantResult:
    state = grid.search(question(grid.ladder, len(seeds)), seeds)
    return variant_result(state, Facts(max_steps=grid.max_steps))


def judged(grids: list[Grid], seeds: int) -> dict[str, Bar]:
    found = {
        (grid.norm, chosen): searched(grid, chosen)
        for grid in grids
        for chosen in itertools.combinations(grid.seeds, seeds)
    }
    edges = {grid.norm: crossing(grid, grid.seeds, FLOOR) for grid in grids}
    ladder = grids[0].ladder
    assert all(grid.ladder == ladder for grid in grids)

    def fell(before: Edge, now: Edge) -> bool:
        return compare_edge(before, now, ladder, CONFIDENCE).worse

    same, lower = [], []
    for (norm, chosen), (other, others) in itertools.permutations(found, 2):
        pair = found[norm, chosen], found[other, others]
        if norm == other and not {*chosen} & {*others}:
            same.append(pair)
        elif edges[norm] - edges[other] >= APART:
            lower.append(pair)
    useful = [fell(useful_edge(before), useful_edge(now)) for before, now in same]
    stable = [fell(stable_edge(before), stable_edge(now)) for before, now in same]
    loss = [compare_loss(before, now, TOLERANCE, CONFIDENCE).worse for before, now in same]
    apart = [fell(useful_edge(before), useful_edge(now)) for before, now in lower]
    print(f"{seeds} seed(s): {len(same)} pairs of one variant, {len(lower)} whose edges are apart")
    bars: dict[str, Bar] = {}
    for name, worse, bar in (
        ("useful_called_worse", useful, at_most(0.05, fmean(useful))),
        ("stable_called_worse", stable, at_most(0.05, fmean(stable))),
        ("loss_called_worse", loss, at_most(0.1, fmean(loss))),
        ("lower_found", apart, at_least(0.9, fmean(apart))),
    ):
        print(f"  {name}: {sum(worse)} of {len(worse)}, {fmean(worse):.1%}", flush=True)
        bars[f"{seeds}_seeds/{name}"] = bar
    return bars


def main() -> None:
    grids = read_grids(TABLES, MAX_STEPS, FLOOR)
    finish("gate_noise", judged(grids, 1) | judged(grids, 3))


if __name__ == "__main__":
    main()
