"""The report's numbers where the stores are servers: PostgreSQL, and MLflow behind HTTP."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_store import Stores, add_full_search, read_search

from mlflow_server import Server
from postgresql_server import PostgreSQL
from redline.report import Search, write_report


@pytest.fixture(scope="module")
def database(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """One for Optuna and one for MLflow."""
    storage, tracking = (postgresql.url(postgresql.new_database()) for _ in range(2))
    searches = tmp_path_factory.mktemp("elsewhere") / "searches"
    searches.mkdir()
    stores = Stores(storage, tracking, searches)
    add_full_search(stores)
    return stores


@pytest.fixture(scope="module")
def server(database: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    assert database.tracking_uri is not None
    server = Server(tmp_path_factory.mktemp("server"), database.tracking_uri)
    server.start()
    server.wait()
    yield server
    server.stop()


def numbers(search: Search) -> list[Any]:
    """All that a report may show of a search, but for the names that stores give."""
    found: list[Any] = []
    for variant in search.variants:
        found.append((variant.name, variant.result, variant.edge, variant.first_diverged))
        for run in variant.runs:
            points = {
                name: [(step, repr(value)) for step, value in run.history(name).items()]
                for name in sorted(run.tracked.metrics)
            }
            loss = None if run.val_loss is None or math.isnan(run.val_loss) else run.val_loss
            found.append((run.value, run.seed, run.verdict, run.reason, run.step, loss, points))
    return found


def test_they_equal_those_of_files(stores: Stores, database: Stores, server: Server, tmp_path: Path) -> None:
    expected = numbers(read_search(stores, "full"))
    assert sum(len(run[-1]) for run in expected if len(run) == 7) > 50
    assert numbers(read_search(database, "full")) == expected
    behind_http = Stores(database.storage, f"http://127.0.0.1:{server.port}", database.searches)
    search = read_search(behind_http, "full")
    assert numbers(search) == expected
    page = write_report(search, tmp_path, "baseline").read_text()
    assert "MLflow did not answer" not in page
