"""Tokens per second of a training step: ours, as users run it, beside a lean loop and two peers.

Each trains a GPT of the same shape in the same number format, on the same number of tokens a step, with all
the threads there are; they take turns in one session, and a ratio is that of two turns of the same round.
"""

import statistics

import torch

from _harness import (
    NO_BF16,
    Bar,
    Cell,
    Contender,
    Race,
    arguments,
    at_least,
    finish,
    has_bf16,
    machine,
    not_measured,
    race,
    spread,
)

# Steps of a turn: some seconds of training, so that the tracker's sender falls into every turn.
STEPS = {"mini": 50, "small": 8}
LEAN_BARS = {"mini_fp32": 0.97, "small_fp32": 0.97, "mini_bf16": 1.8, "small_bf16": 1.4}
PEER_BAR = 1.0


def contenders() -> list[Contender]:
    return [
        Contender("ours", "contenders.ours"),
        Contender("lean", "contenders.lean"),
        Contender("huggingface", "contenders.huggingface", peer=True),
        Contender("litgpt", "contenders.litgpt_loop", peer=True),
    ]


def show(cell: Cell, result: Race) -> None:
    print(f"  {'':12} {'tokens/s':>24} {'ours is faster by':>24}")
    for name in result.turns:
        speeds = [
            cell.tokens_per_step * steps_per_second for steps_per_second in result.steps_per_second(name)
        ]
        times = (
            "" if name == "ours" or "ours" in result.failed else spread(result.ratios(name, "ours"), ".3f")
        )
        print(f"  {name:12} {spread(speeds, '.0f'):>24} {times:>24}", flush=True)


def bar_of(cell: Cell, rival: str) -> float:
    return LEAN_BARS.get(cell.name, PEER_BAR) if rival == "lean" else PEER_BAR


def judge(cell: Cell, rival: str, result: Race) -> Bar:
    for name in ("ours", rival):
        if name in result.failed:
            return not_measured(bar_of(cell, rival), f"{name}: {result.failed[name]}")
    return at_least(bar_of(cell, rival), statistics.median(result.ratios(rival, "ours")))


def main() -> None:
    names = [contender.name for contender in contenders()]
    parser = arguments(__doc__, cells=LEAN_BARS, rounds=9)
    parser.add_argument("--contenders", nargs="+", choices=names, default=names, help="beside ours")
    parser.add_argument(
        "--emulated-bf16", action="store_true", help="bf16 also without instructions for it (very slow)"
    )
    options = parser.parse_args()
    chosen = [contender for contender in contenders() if contender.name in ("ours", *options.contenders)]
    rivals = [contender.name for contender in chosen if contender.name != "ours"]

    print(machine(), flush=True)
    bars = {}
    for cell in options.cells:
        steps = options.steps or STEPS.get(cell.model, 8)
        print(f"{cell}; {options.rounds} rounds of {steps} steps", flush=True)
        if cell.precision == "bf16" and not has_bf16(torch.device("cpu")) and not options.emulated_bf16:
            print(f"  skipped: {NO_BF16}")
            bars |= {
                f"{cell.name}_vs_{rival}": not_measured(bar_of(cell, rival), NO_BF16) for rival in rivals
            }
            continue
        result = race(chosen, cell, rounds=options.rounds, steps=steps, warmup=min(steps, 5))
        show(cell, result)
        bars |= {f"{cell.name}_vs_{rival}": judge(cell, rival, result) for rival in rivals}
    finish("train_speed", bars)


if __name__ == "__main__":
    main()
