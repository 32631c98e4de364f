"""Explicit against fused attention, forward and backward, over number formats, lengths and head widths.

Shows whether the table of ``redline.model.paths`` holds on this CPU. It does where it names the faster path
of every cell in which the paths differ by more than a tenth.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from _harness import NO_BF16, Bar, at_most, finish, has_bf16, machine, not_measured, spread
from redline.model.attention import explicit, fused
from redline.model.paths import explicit_is_faster
from redline.model.positions import Rope
from redline.training.allocator import keep_freed_memory

BATCH_SIZE, NUM_HEADS = 16, 4
LENGTHS, HEAD_WIDTHS = (64, 128, 256, 512), (16, 32)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MARGIN = 1.1


def inputs(dtype: torch.dtype, T: int, K: int) -> list[Tensor]:
    """q, k and v with the strides that they have in a model: v is a view of the QKV linear's output."""
    qkv_3BHTK = torch.randn(BATCH_SIZE, T, 3, NUM_HEADS, K, dtype=dtype).permute(2, 0, 3, 1, 4)
    rope = Rope(T, NUM_HEADS * K, NUM_HEADS, 10_000.0)
    q_BHTK, k_BHTK = (rope.rotate(x_BHTK) for x_BHTK in qkv_3BHTK[:2])
    return [x_BHTK.detach().requires_grad_() for x_BHTK in (q_BHTK, k_BHTK, qkv_3BHTK[2])]


def paths(dtype: torch.dtype, T: int, K: int) -> dict[str, Callable[[], None]]:
    """One forward and backward through each path, on the same tensors."""
    qkv = inputs(dtype, T, K)
    scale, identity = K**-0.5, nn.Identity()
    mask_TT = torch.full((T, T), float("-inf")).triu(1)
    grad_BTD = torch.randn(BATCH_SIZE, T, NUM_HEADS * K, dtype=dtype)

    def both_ways(attend: Callable[..., Tensor], *settings: object) -> None:
        y_BHTK = attend(*qkv, scale, 0.0, *settings)
        y_BHTK.transpose(1, 2).reshape(BATCH_SIZE, T, -1).backward(grad_BTD)
        for x_BHTK in qkv:
            x_BHTK.grad = None

    return {
        "fused": lambda: both_ways(fused),
        "explicit": lambda: both_ways(explicit, mask_TT, identity, identity),
    }


def seconds(step: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def measure(dtype: torch.dtype, T: int, K: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each path, a round each; a turn lasts about 50 ms, and the order alternates."""
    steps = paths(dtype, T, K)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    repeats = {name: max(1, round(0.05 / seconds(step, 2))) for name, step in steps.items()}
    for index in range(rounds):
        for name in sorted(steps, reverse=index % 2 == 0):
            times[name].append(seconds(steps[name], repeats[name]))
    return times


def judge(dtype_name: str, rounds: int) -> Bar:
    dtype, wrong = DTYPES[dtype_name], 0
    print(
        f"{dtype_name}: {'T':>5} {'K':>3} {'fused ms':>25} {'explicit ms':>25} {'fused/explicit':>20}  chosen"
    )
    for T, K in itertools.product(LENGTHS, HEAD_WIDTHS):
        times = measure(dtype, T, K, rounds)
        ratios = [slow / fast for slow, fast in zip(times["fused"], times["explicit"], strict=True)]
        gain = statistics.median(ratios)
        explicit_chosen = explicit_is_faster("cpu", dtype, T)
        agrees = 1 / MARGIN <= gain <= MARGIN or (gain > 1) == explicit_chosen
        wrong += not agrees
        columns = [spread([1000 * x for x in times[name]], ".2f") for name in ("fused", "explicit")]
        print(
            f"      {T:5} {K:3} {columns[0]:>25} {columns[1]:>25} {spread(ratios, '.2f'):>20}  "
            f"{'explicit' if explicit_chosen else 'fused'}{'' if agrees else ': WRONG'}",
            flush=True,
        )
    return at_most(0, wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--emulated-bf16", action="store_true", help="bf16 also without instructions for it (very slow)"
    )
    options = parser.parse_args()
    keep_freed_memory()
    print(machine(), flush=True)
    print(f"batch {BATCH_SIZE}, {NUM_HEADS} heads; {options.rounds} rounds; median (range)")
    bars = {}
    for name, dtype in DTYPES.items():
        if dtype == torch.bfloat16 and not has_bf16(torch.device("cpu")) and not options.emulated_bf16:
            print(f"{name}: skipped: {NO_BF16}")
            bars[f"wrong_{name}_cells"] = not_measured(0, NO_BF16)
        else:
            bars[f"wrong_{name}_cells"] = judge(name, options.rounds)
    finish("attention_paths", bars)


if __name__ == "__main__":
    main()
