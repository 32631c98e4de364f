"""What the tracker costs a training step, as a share of it.

Measured twice: directly, as the time inside the tracker's calls over the whole time of a run, and as the
difference between a run with the tracker and one without, turn by turn. The bar takes the direct one: the
other is the small difference of two large numbers and moves by more than the bar with whatever else the
machine does. It stays as a check that nothing is missed, such as work that a call leaves behind: here the
sender's, a process of its own that gives way to training.
"""

from _harness import Contender, Race, arguments, at_most, finish, machine, not_measured, percent, race, spread

BAR = 0.02
# Some seconds of training: the sender's batches fall into every turn.
STEPS = 50


def direct_cost(result: Race) -> float:
    turns = result.turns["mlflow"]
    return sum(turn.inside for turn in turns) / sum(turn.seconds for turn in turns)


def main() -> None:
    options = arguments(__doc__, cells=["tiny_fp32", "mini_fp32"], rounds=6).parse_args()
    steps = options.steps or STEPS
    trackers = [Contender(name, "contenders.ours", {"tracker": name}) for name in ("mlflow", "none")]
    print(machine(), flush=True)
    bars = {}
    for cell in options.cells:
        print(f"{cell}; {options.rounds} rounds of {steps} steps", flush=True)
        result = race(trackers, cell, rounds=options.rounds, steps=steps, warmup=steps)
        if result.failed:
            reason = "; ".join(f"tracker={name}: {reason}" for name, reason in result.failed.items())
            bars[f"{cell.name}_logging"] = not_measured(BAR, reason)
            continue
        for name in result.turns:
            milliseconds = [1000 * seconds / steps for seconds in result.seconds(name)]
            print(f"  tracker={name:7} {spread(milliseconds, '.2f')} ms a step")
        direct = direct_cost(result)
        extra = [ratio - 1 for ratio in result.ratios("mlflow", "none")]
        print(f"  inside the tracker's calls: {percent(direct)} of the time")
        print(f"  longer than without a tracker: {spread(extra, '.2%')}", flush=True)
        bars[f"{cell.name}_logging"] = at_most(BAR, direct)
    finish("logging_cost", bars)


if __name__ == "__main__":
    main()
