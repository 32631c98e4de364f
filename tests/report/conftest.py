import math
from pathlib import Path

import pytest
from filelock import FileLock
from made_up_store import KINDS, ODD_NAME, Fake, add_search, make_stores, norms, stores_in

from redline.report import write_report
from redline.report.load import read_search
from redline.report.stores import Stores

STEPS = list(range(0, 100, 10))


@pytest.fixture(scope="session")
def stores(shared: Path) -> Stores:
    """A search of every kind; made by whichever worker comes first, as fresh stores take seconds."""
    folder = shared / "made-up"
    with FileLock(shared / "made-up.lock"):
        if not folder.exists():
            fill(make_stores(folder))
    return stores_in(folder)


def fill(stores: Stores) -> None:
    stable = norms(STEPS, layers=3) | {"attention/max_logit": {0: 10.0, 50: 800.0, 90: 700.0}}
    burst = norms(STEPS[:4], 3, odd={20: math.inf, 30: math.nan}) | {
        "attention/max_logit": {0: 9.0, 10: math.inf}
    }
    logits = {"attention/max_logit": {0: 9.0, 10: 2.0e4}}
    full = {
        "baseline": [
            Fake(0, val_loss=4.5, curves=stable),
            Fake(1, val_loss=4.25, curves=stable),
            Fake(1, 1, val_loss=4.375, curves=stable, sent_late=True),
            Fake(2, val_loss=None, reason="non_finite", curves=burst),
            Fake(2, 1, val_loss=9.5, reason="no_learning", curves=logits),
            Fake(5, val_loss=None, reason="blow_up", curves=logits),
        ],
        ODD_NAME: [
            Fake(0, val_loss=4.125, curves=stable),
            Fake(2, val_loss=4.0, curves=stable),
            Fake(3, val_loss=4.5, reason="degraded", late=True, curves=norms(STEPS, 3, size=2.5)),
            Fake(3, 1, val_loss=4.75, reason="degraded", late=True),
            Fake(4, state="crash"),
        ],
    }
    # Before the others: what is said of the latest search must not depend on it.
    add_search(stores, "one-variant", {"qk": [Fake(0, curves=stable), Fake(5, val_loss=3.5, curves=stable)]})
    add_search(
        stores,
        "all-diverged",
        {"qk": [Fake(0, val_loss=None, reason="blow_up"), Fake(3, val_loss=math.nan, reason="non_finite")]},
    )
    add_search(stores, "untracked", {"qk": [Fake(0), Fake(1, reason="degraded")]}, tracked=False)
    running = [Fake(0, curves=stable), Fake(3, val_loss=None, reason="blow_up"), Fake(1, state="running")]
    add_search(stores, "running", {"qk": running, "qkv": []}, ended=False)
    add_search(stores, "full", full, seeds=2)


@pytest.fixture(scope="session")
def written(stores: Stores, shared: Path) -> dict[str, Path]:
    """Every kind's page, written once likewise."""
    folder = shared / "reports"
    with FileLock(shared / "reports.lock"):
        if not folder.exists():
            for name in KINDS:
                uri = None if name == "untracked" else stores.tracking_uri
                search = read_search(Stores(stores.storage, uri, stores.searches), name)
                write_report(search, folder / name, "baseline")
    return {name: folder / name / "report.html" for name in KINDS}
