"""How early, how often and how wrongly the forecaster warns, on curves that `record_curves.py` recorded.

Its limits (`conf/divergence/default.yaml`) were set on two variants with one seed. Its form was chosen with a
look at others; the figures that count are those of variants, seeds and a shape that were recorded afterwards.
A run has diverged by a rule as it ran, or it is lost: it ended above the best smaller rate of its variant and
seed, in `grid_tiny.csv` or among the curves, by at least `lost_share` of what that one learned.

The lead is the step at which that is known less the warning's. A lost run is known at its end, so beside it
stands the lead over the loss: over the first step since which the smoothed loss has stayed above the loss at
initialisation (for the rules judged while training), or above that of the best smaller rate recorded by what
makes a run lost. That is hindsight: no one who watches the loss could have known by then that it would stay
there. Of a run whose loss shows it before the first reading after the start, no reading can warn ahead of it:
those are counted apart.
"""

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from omegaconf import OmegaConf

from _harness import ROOT, finish, measured
from _replay import FLOOR, LOST
from record_curves import CURVES, EVERY, LOOKED_AT, TINY, TUNED, UNSEEN
from record_grid import TABLE, rows_of
from redline.stability import Forecaster, build_forecaster

CONF = ROOT / "conf"
DIVERGENCE = OmegaConf.create(
    {
        "schedule": OmegaConf.load(CONF / "schedule" / "cosine.yaml"),
        "divergence": OmegaConf.load(CONF / "divergence" / "default.yaml"),
    }
).divergence
SMOOTHING = DIVERGENCE.blow_up.smoothing


@dataclass
class Curve:
    """One recorded run; a loss a step, a reading every ``EVERY`` steps."""

    norm: str
    seed: int
    shape: tuple[int, int]  # width, layers
    lr: float
    reason: str  # the rule that broke, or lost; empty for a useful run
    step: int
    val_loss: float
    smoothed: np.ndarray
    readings: dict[str, np.ndarray]
    loss_shows: int | None = None  # a step; see above

    @property
    def group(self) -> tuple[str, int, tuple[int, int]]:
        return self.norm, self.seed, self.shape

    @property
    def name(self) -> str:
        return f"{self.norm} {self.shape[0]}x{self.shape[1]} seed {self.seed} lr {self.lr:g}"

    def forecast(self, forecaster: Forecaster, every: int) -> int | None:
        """The step at which it is warned of, with a reading every so many steps."""
        for index in range(0, len(self.readings["max_logit"]), every // EVERY):
            readings = {name: float(values[index]) for name, values in self.readings.items()}
            found = forecaster.read(index * EVERY, readings)
            if found is not None:
                return found.step
        return None


def recorded() -> list[Curve]:
    rows = np.load(CURVES)
    curves = []
    for index in range(len(rows["norm"])):
        ended = int(rows["step"][index])
        its = {key: rows[key][index] for key in rows}
        width = int(its["width"])
        into_residual = np.maximum(its["norm/proj"], its["norm/fc2"]) / math.sqrt(width)
        readings = {"max_logit": its["max_logit"], "output_gain": into_residual / width**2}
        curves.append(
            Curve(
                str(its["norm"]),
                int(its["seed"]),
                (width, int(its["num_layers"])),
                float(its["lr"]),
                str(its["reason"]),
                ended,
                float(its["val_loss"]),
                smoothed(its["loss"][: ended + 1]),
                {name: values[: ended // EVERY + 1] for name, values in readings.items()},
            )
        )
    for curve in curves:
        judge(curve, curves)
    return curves


def smoothed(losses: np.ndarray) -> np.ndarray:
    """As the rules smooth them."""
    total, weight, means = 0.0, 0.0, []
    for loss in losses:
        total, weight = SMOOTHING * total + (1 - SMOOTHING) * loss, SMOOTHING * weight + 1 - SMOOTHING
        means.append(total / weight)
    return np.array(means)


def judge(curve: Curve, curves: Sequence[Curve]) -> None:
    """Whether a run is lost, and the step since which the loss shows how it ends."""
    smaller = [
        other
        for other in curves
        if other.group == curve.group and other.lr < curve.lr and math.isfinite(other.val_loss)
    ]
    best = min([curve.val_loss, *(other.val_loss for other in smaller), *grid_losses(curve)])
    allowed = LOST * (FLOOR - best)
    if not curve.reason and curve.val_loss - best >= allowed:
        curve.reason = "lost"
    if curve.reason == "lost" and smaller:
        gentle = min(smaller, key=lambda other: other.val_loss)
        curve.loss_shows = last_run_of(curve.smoothed > gentle.smoothed + allowed)
    elif curve.reason and curve.reason != "lost":
        curve.loss_shows = last_run_of(curve.smoothed > curve.smoothed[0])


def grid_losses(curve: Curve) -> list[float]:
    """Of the smaller rates of its variant and seed that `record_grid.py` ran."""
    key = (curve.norm, str(curve.seed), "250")
    rows = [row for row in rows_of(TABLE) if (row["norm"], row["seed"], row["max_steps"]) == key]
    smaller = [row for row in rows if float(row["lr"]) < curve.lr and row["val_loss"]]
    return [float(row["val_loss"]) for row in smaller if curve.shape == TINY]


def last_run_of(shown: np.ndarray) -> int:
    """The step since which it has been true until the end; the step after the end if it is not true there."""
    hidden = np.flatnonzero(~shown)
    return int(hidden[-1]) + 1 if len(hidden) else 0


@dataclass
class Score:
    """Of runs that ended alike; leads in steps, of those that were warned of."""

    runs: int = 0
    leads: list[int] = field(default_factory=list)
    leads_over_loss: list[int] = field(default_factory=list)
    bad_at_once: list[int] = field(default_factory=list)  # the same, of those that no reading can be ahead of

    def figures(self) -> dict[str, float | None]:
        return {
            "runs": self.runs,
            "recall": len(self.leads) / self.runs if self.runs else None,
            "median_lead": median(self.leads) if self.leads else None,
            "median_lead_over_loss": median(self.leads_over_loss) if self.leads_over_loss else None,
            "bad_at_once": len(self.bad_at_once),
        }


def evaluate(title: str, curves: Iterable[Curve], every: int) -> dict[str, float | None]:
    """Prints a line a run and a summary; gives the figures."""
    print(f"{title}, a reading every {every} steps")
    scores = {"online": Score(), "lost": Score(), "useful": Score()}
    for curve in curves:
        _, forecaster = build_forecaster(DIVERGENCE)
        assert forecaster is not None
        warned = curve.forecast(forecaster, every)
        said = "" if forecaster.forecast is None else f"warned at {warned}: {forecaster.forecast.reason}"
        print(f"  {curve.name:34} {curve.reason or 'useful':10} {said}")
        at_end = curve.reason in ("lost", "no_learning")
        score = scores["useful" if not curve.reason else "lost" if at_end else "online"]
        score.runs += 1
        if warned is not None:
            score.leads.append(curve.step - warned)
            if curve.loss_shows is not None:
                at_once = curve.loss_shows <= every
                leads = score.bad_at_once if at_once else score.leads_over_loss
                leads.append(curve.loss_shows - warned)
    for kind in ("online", "lost"):
        score = scores[kind]
        print(f"  {kind}: {score.figures()}")
        print(f"    over the loss {sorted(score.leads_over_loss)}, bad at once {sorted(score.bad_at_once)}")
    useful = scores.pop("useful")
    alarms = len(useful.leads) / useful.runs if useful.runs else None
    print(f"  useful: {len(useful.leads)} false alarms in {useful.runs} runs")
    figures = {f"{kind}/{key}": its for kind, score in scores.items() for key, its in score.figures().items()}
    return {**figures, "useful/runs": useful.runs, "false_alarms_per_useful_run": alarms}


def show_room(curves: Sequence[Curve]) -> None:
    """Between what limits each reading tells the tuned runs apart: its largest growth, smallest first."""
    _, forecaster = build_forecaster(DIVERGENCE)
    assert forecaster is not None
    for name in forecaster.limits:
        peaks = []
        for its in curves:
            values = its.readings[name]
            shares = np.array([forecaster.share(index * EVERY) for index in range(len(values))])
            peak = np.nanmax((values[1:] - values[0]) / shares[1:])
            peaks.append((float(peak), its.norm, its.reason))
        text = ", ".join(f"{peak:.3g} {norm} {reason or 'useful'}" for peak, norm, reason in sorted(peaks))
        print(f"  peaks of {name}: {text}")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    curves = recorded()
    groups = {"looked_at": LOOKED_AT, "unseen": UNSEEN}
    tuned = [its for its in curves if its.group in TUNED]
    show_room(tuned)
    bars = {}
    for every in (EVERY, 2 * EVERY):
        evaluate("tuned on", tuned, every)
        for name, group in groups.items():
            found = evaluate(name, [its for its in curves if its.group in group], every)
            if every == 2 * EVERY:  # conf/monitor's cadence
                bars |= {f"{name}/{key}": measured(value) for key, value in found.items()}
    finish("forecast", bars)


if __name__ == "__main__":
    main()
