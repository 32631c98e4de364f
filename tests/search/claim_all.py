"""`python claim_all.py URL BARRIER PROCESSES`: one of several processes that want every point."""

import json
import os
import sys
import time
from pathlib import Path

from search_helpers import attributes

from redline.search.policy.points import Point
from redline.search.store.owner import Owner
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy


def main(url: str, barrier: str, processes: int) -> None:
    # All imports are done: open the storage at the same moment as the others.
    mine = Path(barrier) / str(os.getpid())
    mine.touch()
    while len(list(Path(barrier).iterdir())) < processes:
        time.sleep(0.001)
    study = VariantStudy(open_storage(url, timeout=60.0), "search/qk", attributes([0.1, 0.2, 0.4]))
    won = []
    for rung in range(3):
        for seed in range(2):
            claim = study.claim(Point(rung, seed), Owner.here())
            if claim is not None:
                won.append([rung, seed, claim.number])
    print(json.dumps(won), flush=True)
    sys.stdin.read()  # stay alive until told


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
