"""Two processes of one thread with DDP, beside one process with two threads: tokens per second, same batch.

The product's run as users have it, in both forms; and DDP by Lightning alone, with our model, optimizer and
data, to tell what taps, rules, tracker and checkpoints add between two ranks. They take turns in one session,
and a ratio is that of two turns of the same round.
"""

import statistics

from _harness import (
    Contender,
    arguments,
    at_most,
    finish,
    machine,
    measured,
    not_measured,
    race,
    spread,
)

STEPS = {"mini": 50, "small": 8}  # of a turn: some seconds
OVERHEAD = 0.02


def contenders() -> list[Contender]:
    threads = {"overrides": ["trainer.threads=2", "trainer.accelerator=cpu"]}
    return [
        Contender("two_ranks", "contenders.two_ranks"),
        Contender("lightning", "contenders.two_ranks", {"plain": True}),
        Contender("two_threads", "contenders.ours", threads),
    ]


def main() -> None:
    options = arguments(__doc__, cells=["small_fp32"], rounds=12).parse_args()
    print(machine(), flush=True)
    bars = {}
    for cell in options.cells:
        steps = options.steps or STEPS.get(cell.model, 8)
        print(f"{cell}; {options.rounds} rounds of {steps} steps", flush=True)
        result = race(contenders(), cell, rounds=options.rounds, steps=steps, warmup=min(steps, 5))
        for name in result.turns:
            speeds = [cell.tokens_per_step * its for its in result.steps_per_second(name)]
            print(f"  {name:12} {spread(speeds, '.0f')} tokens/s", flush=True)
        if result.failed:
            bars[f"{cell.name}_overhead"] = not_measured(OVERHEAD, "; ".join(result.failed.values()))
            continue
        overhead = statistics.median(result.ratios("two_ranks", "lightning")) - 1
        faster = statistics.median(result.ratios("two_threads", "two_ranks"))
        bars[f"{cell.name}_overhead"] = at_most(OVERHEAD, overhead)
        bars[f"{cell.name}_two_ranks_vs_two_threads"] = measured(faster)
    finish("ddp", bars)


if __name__ == "__main__":
    main()
