"""A machine that loses the network, is thought dead, and comes back."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinate import Coordinators
from optuna.trial import TrialState
from search_helpers import open_gate_after, wait_for
from test_postgresql import finished_points, some_study_has, states

from network import Network
from postgresql_server import PostgreSQL


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network(machines=2)
    try:
        network.create()
        yield network
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine makes no network namespaces: {getattr(error, 'stderr', error)!r}")
    finally:
        network.remove()


@pytest.fixture
def server(network: Network, postgresql_programs: Path) -> Iterator[PostgreSQL]:
    with PostgreSQL(postgresql_programs, listen="*", within=network.on_server()).running() as server:
        yield server


def test_another_machine_takes_over_and_nothing_counts_twice(
    network: Network, server: PostgreSQL, tmp_path: Path, coordinators: Coordinators
) -> None:
    name, gate = server.new_database(), tmp_path / "gate"
    seen = server.local_url(name)
    search: dict[str, Any] = {
        "variants": {"qk": {"edge": 0.4, "gate": str(gate)}},
        "ladder": [0.1, 0.2, 0.4],
        "workers": 1,
        "heartbeat_every": 0.2,
        "heartbeat_timeout": 4.0,
    }

    for machine in network.machines:
        url = server.url(name, network.server_address(machine))
        coordinators.start(network.on(machine), url=url, directory=str(tmp_path / str(machine)), **search)

    coordinators.go(coordinators.processes[:1])
    wait_for(lambda: some_study_has(seen, TrialState.RUNNING), "a trial")
    network.cut(1)
    opening = open_gate_after(gate, lambda: states(seen)["lost"], "a takeover")
    coordinators.go(coordinators.processes[1:])
    opening.join()
    assert states(seen)["lost"] >= 1
    wait_for(lambda: len(finished_points(seen)) > 0, "its end")
    network.mend(1)
    first, second = coordinators.results()
    assert first == second
    assert (first["qk"].max_useful_rung, first["qk"].trials) == (0.2, 3)
    assert len(set(finished_points(seen))) == 3
    assert set(states(seen)) <= {"COMPLETE", "lost", "duplicate"}
    assert states(seen)["COMPLETE"] == 3
