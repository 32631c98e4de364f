"""`make faults FAULTS=100 SEED=1`: searches struck by that many random faults, each to end as if undisturbed.

They take turns: two searches whose trials answer at once, one on SQLite and one on PostgreSQL, the real
command, and the same with trials of two ranks. Where this machine cannot be struck by a fault, it says so and
goes on without.
"""

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from rounds import Rounds, Search
from small_disk import NotPermitted, small_disk
from subject import on_ranks, quick, real

from postgresql_server import PostgreSQL, installed

_QUICK_PAUSE, _REAL_PAUSE = (0.3, 2.5), (0.5, 8.0)  # seconds between two faults


def main() -> int:
    """The exit status: 0 where everything held, 1 where something did not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(10_000) if asked.seed is None else asked.seed
    folder = Path(tempfile.mkdtemp(prefix="redline-faults-"))
    print(f"seed {seed}; logs in {folder}", flush=True)
    began, counts = time.monotonic(), Counter[str]()
    with ExitStack() as stack:
        searches = _searches(folder, stack)
        rounds = Rounds(folder, seed)
        for number in itertools.count():
            left = asked.faults - counts.total()
            if left <= 0:
                break
            search = searches[number % len(searches)]
            struck, wrong = rounds.play(number, search, most=left)
            counts.update(its.fault for its in struck)
            print(f"[{time.monotonic() - began:5.0f} s] round {number}, {search.name}: {len(struck)} faults")
            for its in struck:
                print(f"    {its}")
            for problem in wrong:
                print(f"    WRONG {problem}")
            sys.stdout.flush()
            if wrong:
                print(f"failed; `make faults FAULTS={asked.faults} SEED={seed}` repeats it; logs in {folder}")
                return 1
    for fault, count in counts.most_common():
        print(f"{count:4d}  {fault}")
    print(f"{counts.total()} faults in {time.monotonic() - began:.0f} s, seed {seed}: nothing was wrong")
    return 0


def _searches(folder: Path, stack: ExitStack) -> list[Search]:
    small = True
    try:
        with small_disk(folder / "probe", 1):
            pass
    except NotPermitted as reason:
        small = False
        print(f"no disk is filled up: {reason}")
    sqlite = Search("sqlite", quick(), 12, _QUICK_PAUSE, gated=True, megabytes=8 if small else None)
    command = Search(
        "command",
        real(),
        12,
        _REAL_PAUSE,
        checkpoints=True,
        megabytes=24 if small else None,
    )
    ranks = Search("ranks", on_ranks(), 12, _REAL_PAUSE, checkpoints=True, ranks=True)
    programs = installed()
    if programs is None:
        print("no storage is restarted: no PostgreSQL server is installed")
        return [sqlite, command, ranks]
    server = PostgreSQL(programs)
    server.create()
    stack.callback(server.remove)
    server.start()
    postgresql = Search("postgresql", quick(), 12, _QUICK_PAUSE, gated=True, server=server)
    return [sqlite, postgresql, command, ranks]


if __name__ == "__main__":
    sys.exit(main())
