"""What the taps cost a training step: the default monitor at its own cadence, and on every step, over none.

One run without a tracker, whose monitor is taken out and put back from step to step: processes differ by more
than a tap costs, wherever their memory happens to lie, and a machine's pace changes within seconds. Steps are
of three kinds: without a monitor, with one that does not read, with one that reads, its delivery included.
What a kind costs is the median, over rounds of one step each, of its time over that of the step without.
`monitor=full` has no bar.
"""

import itertools
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf

from _harness import (
    ROOT,
    Cell,
    Contender,
    Failed,
    Turn,
    arguments,
    at_most,
    finish,
    machine,
    not_measured,
    spread,
)

SETTINGS = ("off", "idle", "read")
WARMUP = 20  # steps
CADENCE = OmegaConf.load(ROOT / "conf" / "monitor" / "default.yaml").every
BARS = {"default": 0.02, "every_step": 0.08}


class RunError(Exception):
    """The run failed; says why."""


def milliseconds(monitor: str, cell: Cell, rounds: int) -> dict[str, list[float]]:
    """Setting -> its steps, one a round, in an order that rotates. Raises RunError."""
    contender = Contender(monitor, "contenders.switched", {"overrides": [f"monitor={monitor}"]})
    with tempfile.TemporaryDirectory() as folder:
        contender.start(cell, Path(folder) / monitor)
        try:
            _held(contender.wait())
            _held(contender.take_turn(WARMUP, "read"))
            found: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
            for setting in itertools.chain.from_iterable(_orders(rounds)):
                found[setting].append(1000 * _held(contender.take_turn(1, setting)).seconds)
            return found
        finally:
            contender.stop()


def _orders(rounds: int) -> Iterator[tuple[str, ...]]:
    """Every order in turn, so that each kind of step follows each other kind equally often."""
    return itertools.islice(itertools.cycle(itertools.permutations(SETTINGS)), rounds)


def more_than_off(steps: dict[str, list[float]], setting: str) -> float:
    return statistics.median(on / off for on, off in zip(steps[setting], steps["off"], strict=True)) - 1


def _held(turn: Turn | Failed) -> Turn:
    if isinstance(turn, Failed):
        raise RunError(turn.reason)
    return turn


def main() -> None:
    parser = arguments(__doc__, cells=["tiny_fp32", "mini_fp32"], rounds=400)
    options = parser.parse_args()
    print(machine(), flush=True)
    bars = {}
    for cell, monitor in itertools.product(options.cells, ("default", "full")):
        # A reading of all taps takes longer than a step: a few show it.
        rounds = options.rounds if monitor == "default" else -(-options.rounds // 10)
        print(f"{cell}; monitor={monitor}; {rounds} rounds of three steps", flush=True)
        try:
            steps = milliseconds(monitor, cell, rounds)
        except RunError as why:
            print(f"  left out: {why}")
            if monitor == "default":
                bars |= {f"{cell.name}_{name}": not_measured(bar, str(why)) for name, bar in BARS.items()}
            continue
        extra = {name: more_than_off(steps, name) for name in SETTINGS}
        for name in SETTINGS:
            print(f"  {name:5} {spread(steps[name], '.2f')} ms a step, more than off {extra[name]:.2%}")
        if monitor == "default":
            costs = {
                "default": extra["idle"] + (extra["read"] - extra["idle"]) / CADENCE,
                "every_step": extra["read"],
            }
            print(f"  every {CADENCE} steps {costs['default']:.2%}, every step {costs['every_step']:.2%}")
            bars |= {f"{cell.name}_{name}": at_most(BARS[name], value) for name, value in costs.items()}
    finish("monitor_cost", bars)


if __name__ == "__main__":
    main()
