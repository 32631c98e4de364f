"""A CPU search of equal runs by two workers of one thread, beside one worker of one thread and one of two.

Whole commands, interleaved: eight runs of the same length, and all that surrounds them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from omegaconf import OmegaConf

from _harness import ROOT, at_least, finish, machine, spread

STEPS = OmegaConf.load(ROOT / "conf" / "trainer" / "default.yaml").max_steps
WAYS = {
    "two workers, one thread": (2, 1),
    "one worker, one thread": (1, 1),
    "one worker, two threads": (1, 2),
}


def seconds(workers: int, threads: int, steps: int, tokens: Path) -> float:
    """Of one search in a folder of its own. No rule ends a run, so all are of one length."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, ROOT / "src" / "train.py", "-m"),
            *("norm=baseline,qk,qkv,qk_fc", "lr=0.002,0.003"),
            *(f"divergence.{rule}=null" for rule in ("blow_up", "no_return", "no_learning")),
            *("schedule.warmup_steps=1", "trainer.accelerator=cpu"),
            *(f"trainer.max_steps={steps}", f"trainer.threads={threads}", f"data.cache_dir={tokens}"),
            # Both rungs of every variant, and no others.
            *("hydra.sweeper.extend=false", "hydra.sweeper.resolution=1.001", "hydra.sweeper.settled=1"),
            f"hydra.sweeper.workers={workers}",
        ]
        started = time.monotonic()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        took = time.monotonic() - started
        if done.returncode != 0 or done.stdout.count(": stable, validation loss") != 8:
            raise SystemExit(f"the search went wrong:\n{done.stdout}{done.stderr}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS, help="of a run; default: the product's own")
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("needs two cores")
    print(machine())
    took: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as tokens:
        seconds(1, 1, 2, Path(tokens))  # makes the tokens
        for index in range(arguments.rounds):
            ways = list(WAYS.items())
            for name, (workers, threads) in ways[index % 3 :] + ways[: index % 3]:
                took[name].append(seconds(workers, threads, arguments.steps, Path(tokens)))
                print(f"{name}: {took[name][-1]:.0f} s", flush=True)
    both = took["two workers, one thread"]
    ratios = {
        other: [slow / quick for slow, quick in zip(took[other], both, strict=True)]
        for other in WAYS
        if other != "two workers, one thread"
    }
    for other, values in ratios.items():
        print(f"two workers of one thread finish {spread(values, '.2f')} times as fast as {other}")
    one, two = (statistics.median(ratios[other]) for other in ratios)
    finish("worker_scaling", {"over_one_thread": at_least(1.7, one), "over_two_threads": at_least(1.1, two)})


if __name__ == "__main__":
    main()
