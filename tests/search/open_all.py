"""`python open_all.py URL BARRIER PROCESSES PRECISION`: one of several that open searches together."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from fake_trainable import RULES, Fake

from redline.search import Variant
from redline.search.store.patient_storage import PatientStorage
from redline.search.store.searches import open_studies
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy

_SEARCHES = 4
_PRECISIONS = ("fp32", "bf16", "fp16")


def open_named(storage: PatientStorage, url: str, name: str, precision: str) -> dict[str, VariantStudy]:
    """A search's studies, as a machine with this precision opens them."""
    variants = [Variant(variant, Fake(edge=9, precision=precision), RULES) for variant in ("baseline", "qk")]
    common = {"fingerprint": "asked", "ladder": [0.1, 0.2], "seeds": 1, "key": "lr", "label": "LR"}
    facts = {variant.name: variant.trainable.facts() for variant in variants}
    return open_studies(storage, url, name, variants, common, facts)


def facts_of_each(url: str, folder: Path) -> list[set[str]]:
    """Every precision that somebody goes by, for each of several searches that processes open together."""
    here, barrier = Path(__file__).parent, folder / "barrier"
    barrier.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, url, barrier, str(len(_PRECISIONS)), precision],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parents[1] / "src"), str(here)])},
        )
        for precision in _PRECISIONS
    ]
    try:
        said = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [{precision for its in said for precision in its[search]} for search in range(_SEARCHES)]


def main(url: str, barrier: str, processes: int, precision: str) -> None:
    found = []
    for search in range(_SEARCHES):
        (Path(barrier) / f"{search}-{precision}").touch()
        while len(list(Path(barrier).glob(f"{search}-*"))) < processes:
            time.sleep(0.001)
        # The first time they all find a fresh database.
        studies = open_named(open_storage(url, timeout=60.0), url, f"search-{search}", precision)
        found.append([str(its.facts.precision) for its in studies.values()])
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
