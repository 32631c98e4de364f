"""How many steps of lost runs the cut saves, and how many useful runs it ends, on recorded curves.

Each run is judged window by window against the runs of its norm and seed at smaller LRs, twice: once these
have all ended, and once all run at the same time. A run is useful if no rule broke and it lost less than a
share of what the best run at a smaller LR learned. Beside it stands the plain threshold: the smoothed loss is
too far above that of the best smaller run, from a share of the run on.

`record_cut_curves.py` recorded the curves that count. The constants of the cut were set on
`forecast_curves.npz`.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from _harness import ROOT, Bar, at_least, at_most, finish, measured
from redline.search.policy.cut import Curve, prospect

CURVES = ROOT / "bench" / "cut_curves.npz"
WINDOWS = 50
CUT = 0.02  # as hydra.sweeper.cut
LOST_SHARE = 0.25
MOST_CUT, LEAST_SAVED = 0.02, 0.35
THRESHOLD, FROM, SMOOTHING = (
    0.6,
    0.4,
    0.9,
)  # of the plain threshold: nats, share of the run, as the rules smooth


@dataclass(frozen=True)
class Run:
    name: str
    loss: np.ndarray  # nats, a value a step
    final: float | None  # nats
    useful: bool
    smaller: tuple["Run", ...]  # runs at smaller LRs, of the same norm and seed
    max_steps: int

    def windows(self) -> np.ndarray:
        """Mean loss of each window that the run finished."""
        ends = np.linspace(0, self.max_steps, WINDOWS + 1).round().astype(int)
        finished = [its for its in itertools.pairwise(ends) if its[1] <= len(self.loss)]
        return np.array([self.loss[start:end].mean() for start, end in finished])

    def smoothed(self) -> np.ndarray:
        total, means = 0.0, []
        for step, loss in enumerate(self.loss, start=1):
            total = SMOOTHING * total + (1 - SMOOTHING) * loss
            means.append(total / (1 - SMOOTHING**step))
        return np.array(means)


Judge = Callable[[Run], int | None]  # the step at which it cuts a run


def recorded(path: Path, floor: float) -> Iterator[Run]:
    rows = np.load(path)
    norms, seeds, lrs, reasons = (rows[key] for key in ("norm", "seed", "lr", "reason"))
    max_steps = int(np.isfinite(rows["loss"]).sum(axis=1).max())
    groups: dict[tuple[str, int], list[Run]] = {}
    for index in np.argsort(lrs, kind="stable"):
        smaller = groups.setdefault((str(norms[index]), int(seeds[index])), [])
        val_loss = float(rows["val_loss"][index])
        # Older records call a lost run degraded; the lost share judges those again.
        diverged = reasons[index] not in ("", "degraded") or not np.isfinite(val_loss)
        final = None if diverged else val_loss
        best = min((its.final for its in smaller if its.final is not None), default=None)
        lost = final is None or (best is not None and final - best >= LOST_SHARE * (floor - best))
        loss = rows["loss"][index].astype(float)
        steps = np.flatnonzero(np.isfinite(loss)).max(initial=-1) + 1
        run = Run(
            f"{norms[index]}, seed {seeds[index]}, LR {lrs[index]:g}",
            loss[:steps],
            final,
            not lost,
            tuple(smaller),
            max_steps,
        )
        smaller.append(run)
        yield run


def by_chance(floor: float, *, ended: bool) -> Judge:
    """``ended``: the final losses of smaller runs are known."""

    def judge(run: Run) -> int | None:
        losses = run.windows()
        smaller = [(its.windows(), its.final) for its in run.smaller]
        for done in range(1, len(losses) + 1):
            curves = [Curve(of, final) if ended else Curve(of[:done]) for of, final in smaller]
            expected = prospect(losses[:done], curves, floor=floor, lost_share=LOST_SHARE, windows=WINDOWS)
            if expected is not None and expected.chance_useful < CUT:
                return round(done * run.max_steps / WINDOWS)
        return None

    return judge


def by_threshold(run: Run) -> int | None:
    own = run.smoothed()
    best = np.full(len(own), np.inf)
    for its in run.smaller:
        smoothed = its.smoothed()[: len(own)]
        best[: len(smoothed)] = np.minimum(best[: len(smoothed)], smoothed)
    above = np.flatnonzero(own - best > THRESHOLD)
    above = above[above >= FROM * run.max_steps]
    return int(above[0]) + 1 if len(above) else None


def evaluate(title: str, runs: Sequence[Run], judge: Judge) -> tuple[float, float, float]:
    """The shares of useful runs that were cut, of lost runs' steps saved, of all steps saved."""
    print(title)
    wrong, saved_lost, saved = [], 0, 0
    for run in runs:
        step = judge(run)
        if step is None or step >= len(run.loss):
            continue
        saved += len(run.loss) - step
        if run.useful:
            wrong.append(run)
            print(f"  wrongly cut: {run.name} at step {step}")
        else:
            saved_lost += len(run.loss) - step
    useful = sum(run.useful for run in runs)
    of_lost = sum(len(run.loss) for run in runs if not run.useful)
    figures = (
        len(wrong) / max(1, useful),
        saved_lost / max(1, of_lost),
        saved / sum(len(run.loss) for run in runs),
    )
    print(
        f"  {len(wrong)} of {useful} useful runs cut; {figures[1]:.1%} of the steps of {len(runs) - useful} "
        f"lost runs saved, {figures[2]:.1%} of all steps"
    )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--floor", type=float, default=5.681, help="nats")
    arguments = parser.parse_args()
    runs = list(recorded(arguments.curves, arguments.floor))
    bars: dict[str, Bar] = {}
    for name, ended in {"ended": True, "at_once": False}.items():
        wrong, of_lost, of_all = evaluate(
            f"smaller runs {name}", runs, by_chance(arguments.floor, ended=ended)
        )
        bars[f"{name}/useful_cut"] = at_most(MOST_CUT, wrong)
        bars[f"{name}/lost_steps_saved"] = at_least(LEAST_SAVED, of_lost)
        bars[f"{name}/all_steps_saved"] = measured(of_all)
    wrong, of_lost, of_all = evaluate("plain threshold", runs, by_threshold)
    bars |= {
        "threshold/useful_cut": measured(wrong),
        "threshold/lost_steps_saved": measured(of_lost),
        "threshold/all_steps_saved": measured(of_all),
    }
    finish("cut", bars)


if __name__ == "__main__":
    main()
