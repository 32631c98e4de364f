"""A search whose trials answer once a gate lets them, as a command that can be killed and given again."""

import os
import signal
import sys
from pathlib import Path

from coordinate import coordinate

from redline.command_line import user_errors
from redline.search import SearchResult

LADDER = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
# Edges by a rule while training, by the curve, and none; each seed has a loss of its own.
_VARIANTS = {
    "diverges": {"edge": 0.8},
    "is_lost": {"edge": 9, "losses": {"1.6": 4.6, "3.2": 5.2}},
    "stable": {"edge": 9},
}


def main() -> None:
    """For `python -c`, with the word `hydra.sweeper.storage=URL`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    folder = Path("mlruns/searches/faults")
    fake = {"seconds": 0.05, "spread": 0.001, "gate": os.environ["REDLINE_FAULTS_GATE"]}
    with user_errors():
        print("begun", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        done = coordinate(
            sys.argv[1].removeprefix("hydra.sweeper.storage="),
            str(folder.absolute()),
            {name: {**fake, **its} for name, its in _VARIANTS.items()},
            ladder=LADDER,
            seeds=3,
            # All of the grid is run: which runs a search chooses depends on the order in which they end.
            resolution=1.0001,
            settled=1.0,
            retries=100_000,
            heartbeat_every=0.2,
            heartbeat_timeout=3.0,
            storage_timeout=60.0,
            grace_period=2.0,
        )
        SearchResult("search", LADDER, 3, done.results).write(folder / "result.json")
