"""What each remedy of `experiment=remedies` adds to the time of a training step.

Runs of `tiny` in fp32, one for each file of conf/remedy/, take turns in one session; a figure is the median
over rounds of a remedy's time over that of `none` in the same round.
"""

import statistics

from _harness import ROOT, Contender, arguments, finish, machine, measured, race, spread

STEPS = 20  # of a turn


def main() -> None:
    options = arguments(__doc__, cells=["tiny_fp32"], rounds=9).parse_args()
    names = sorted(path.stem for path in (ROOT / "conf/remedy").glob("*.yaml"))
    print(machine(), flush=True)
    bars = {}
    for cell in options.cells:
        contenders = [
            Contender(
                name,
                "contenders.ours",
                {"tracker": "none", "overrides": [f"remedy={name}", "trainer.threads=1"]},
            )
            for name in names
        ]
        steps = options.steps or STEPS
        print(f"{cell}; {options.rounds} rounds of {steps} steps, one thread", flush=True)
        result = race(contenders, cell, rounds=options.rounds, steps=steps, warmup=5)
        for name in result.turns:
            times = [1000 / its for its in result.steps_per_second(name)]
            added = [ratio - 1 for ratio in result.ratios(name, "none")]
            print(f"  {name:10} {spread(times, '.1f'):>26} ms a step {spread(added, '+.1%'):>30}", flush=True)
            bars[f"{cell.name}_{name}"] = measured(statistics.median(added))
    finish("remedy_speed", bars)


if __name__ == "__main__":
    main()
