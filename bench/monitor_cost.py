"""What the taps cost a training step: the default monitor at its own cadence, and on every step, over none.

The same runs, without a tracker, by turns in one session; a figure is the median over rounds of the ratio of
two turns of the same round, each as long as two readings of the default cadence. `monitor=full`, and the
default taps on steps that are not read, are shown beside it and have no bar.
"""

import statistics

from _harness import Contender, arguments, at_most, finish, machine, not_measured, race, spread

STEPS = 20  # of a turn: two readings of the default cadence
MONITORS = {
    "off": ["monitor=off"],
    "default": ["monitor=default"],
    "every_step": ["monitor=default", "monitor.every=1"],
    "idle": ["monitor=default", "monitor.every=1000000"],
    "full": ["monitor=full"],
}
BARS = {"default": 0.02, "every_step": 0.08}


def main() -> None:
    parser = arguments(__doc__, cells=["tiny_fp32", "mini_fp32"], rounds=40)
    parser.add_argument("--monitors", nargs="+", choices=MONITORS, default=list(MONITORS), help="beside off")
    options = parser.parse_args()
    steps = options.steps or STEPS
    chosen = [name for name in MONITORS if name in ("off", *BARS, *options.monitors)]
    contenders = [
        Contender(name, "contenders.ours", {"tracker": "none", "overrides": MONITORS[name]})
        for name in chosen
    ]
    print(machine(), flush=True)
    bars = {}
    for cell in options.cells:
        print(f"{cell}; {options.rounds} rounds of {steps} steps", flush=True)
        result = race(contenders, cell, rounds=options.rounds, steps=steps, warmup=steps)
        for name in chosen:
            if name in result.failed or "off" in result.failed:
                if name in BARS:
                    reason = "; ".join(f"{one}: {why}" for one, why in result.failed.items())
                    bars[f"{cell.name}_{name}"] = not_measured(BARS[name], reason)
                continue
            milliseconds = [1000 * seconds / steps for seconds in result.seconds(name)]
            extra = [ratio - 1 for ratio in result.ratios(name, "off")]
            print(
                f"  {name:11} {spread(milliseconds, '.2f')} ms a step, more than off {spread(extra, '.2%')}"
            )
            if name in BARS:
                bars[f"{cell.name}_{name}"] = at_most(BARS[name], statistics.median(extra))
    finish("monitor_cost", bars)


if __name__ == "__main__":
    main()
