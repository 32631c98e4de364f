import math
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from made_up_store import (
    KINDS,
    STEPS,
    Fake,
    Stores,
    add_full_search,
    add_search,
    make_stores,
    norms,
    read_search,
    stores_in,
)

from redline.metrics import MAX_LOGIT
from redline.report import write_report
from redline.search.trainable import Facts


@pytest.fixture(scope="session")
def stores(shared: Path) -> Stores:
    """A search of every kind; made by whichever worker comes first, as fresh stores take seconds."""
    folder = shared / "made-up"
    with FileLock(shared / "made-up.lock"):
        if not folder.exists():
            fill(make_stores(folder))
    return stores_in(folder)


def fill(stores: Stores) -> None:
    stable = norms(STEPS, layers=3) | {MAX_LOGIT: {0: 10.0, 50: 800.0, 90: 700.0}}
    # Before the others: what is said of the latest search must not depend on it.
    add_search(stores, "one-variant", {"qk": [Fake(0, curves=stable), Fake(5, val_loss=3.5, curves=stable)]})
    add_search(
        stores,
        "all-diverged",
        {"qk": [Fake(0, val_loss=None, reason="blow_up"), Fake(3, val_loss=math.nan, reason="non_finite")]},
    )
    untracked = replace(stores, tracking_uri=None)
    add_search(untracked, "untracked", {"qk": [Fake(0), Fake(1, val_loss=6.0)]})
    add_search(
        untracked,
        "other",
        {
            "plain": [
                Fake(0, val_loss=0.5),
                Fake(1, val_loss=0.25),
                Fake(2, val_loss=None, reason="blow_up"),
            ],
            "scaled": [Fake(0, val_loss=0.375), Fake(1, val_loss=0.875)],
        },
        key="weight_decay",
        label="weight decay",
        facts=Facts(),
        perplexity=False,
    )
    running = [Fake(0, curves=stable), Fake(3, val_loss=None, reason="blow_up"), Fake(1, state="running")]
    add_search(stores, "running", {"qk": running, "qkv": []}, ended=False)
    add_full_search(stores)


@pytest.fixture(scope="session")
def written(stores: Stores, shared: Path) -> dict[str, Path]:
    """Every kind's page, written once likewise."""
    folder = shared / "reports"
    with FileLock(shared / "reports.lock"):
        if not folder.exists():
            for name in KINDS:
                uri = None if name in ("untracked", "other") else stores.tracking_uri
                search = read_search(Stores(stores.storage, uri, stores.searches), name)
                write_report(search, folder / name, "baseline")
    return {name: folder / name / "report.html" for name in KINDS}
