"""Searches on a PostgreSQL server that several coordinators share, and that goes away under them."""

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from coordinate import Coordinators, coordinate
from open_all import facts_of_each, open_named
from optuna.trial import TrialState
from search_helpers import wait_for

from postgresql_server import PostgreSQL
from redline.database import first_opening
from redline.search.store.patient_storage import PatientStorage
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy

LADDER = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
pytestmark = pytest.mark.usefixtures("own_environment")


def trials(url: str, variant: str = "qk") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=f"search/{variant}", storage=open_storage(url, timeout=60.0)).trials


def states(url: str, variant: str = "qk") -> Counter[str]:
    """How many trials ended how: a state, or a failure."""
    return Counter(trial.user_attrs.get("failure", trial.state.name) for trial in trials(url, variant))


def finished_points(url: str, variant: str = "qk") -> list[tuple[float, int]]:
    done = [trial for trial in trials(url, variant) if trial.state == TrialState.COMPLETE]
    return [(trial.params["lr"], trial.params["seed"]) for trial in done]


def some_study_has(url: str, *wanted: TrialState) -> bool:
    if not optuna.get_all_study_names(open_storage(url, timeout=60.0)):
        return False
    return any(trial.state in wanted for trial in trials(url))


def test_coordinators_share_the_work_and_find_the_same(
    postgresql: PostgreSQL, database: str, tmp_path: Path, coordinators: Coordinators
) -> None:
    """They open a fresh database at the same moment, as different machines do."""
    url = postgresql.url(database)
    for machine in range(3):
        coordinators.start(
            url=url,
            directory=str(tmp_path / str(machine)),
            variants={"baseline": {"edge": 0.2, "seconds": 0.8}, "qk": {"edge": 1.6, "seconds": 0.8}},
            ladder=LADDER,
            seeds=2,
            workers=1,
        )
    coordinators.go()
    results = coordinators.results()
    assert results[0] == results[1] == results[2]
    assert {name: its.max_useful_rung for name, its in results[0].items()} == {"baseline": 0.1, "qk": 0.8}
    for name in ("baseline", "qk"):
        points = finished_points(url, name)
        assert len(points) == len(set(points)) == results[0][name].trials
        assert set(states(url, name)) <= {"COMPLETE", "duplicate"}


def test_of_those_who_open_a_search_together_the_first_ones_facts_hold_for_all(
    postgresql: PostgreSQL, database: str, tmp_path: Path
) -> None:
    for facts in facts_of_each(postgresql.url(database), tmp_path):
        assert len(facts) == 1


def test_a_server_that_is_gone_while_studies_are_opened_is_waited_for(
    postgresql: PostgreSQL, database: str, tmp_path: Path
) -> None:
    url = postgresql.url(database)
    storage, said = open_storage(url, timeout=600.0), list[str]()
    storage.say = said.append
    postgresql.stop()

    def come_back() -> None:
        try:
            wait_for(lambda: bool(said), "a word about it")
        finally:
            postgresql.start()

    thread = threading.Thread(target=come_back)
    thread.start()
    studies = open_named(storage, url, "search", "fp32")
    thread.join()
    assert studies["qk"].facts.precision == "fp32"


def test_one_opens_a_fresh_database_while_others_wait(postgresql: PostgreSQL, database: str) -> None:
    url, opened = postgresql.url(database), threading.Event()

    def open_too() -> None:
        with first_opening(url):
            opened.set()

    other = threading.Thread(target=open_too)
    with first_opening(url):
        other.start()
        assert not opened.wait(1)
    other.join()
    assert opened.is_set()


def test_a_restarted_server_changes_nothing(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """Every connection breaks three times, whatever is being asked at that moment."""
    gate = tmp_path / "gate"
    gate.mkdir()
    search: dict[str, Any] = {"ladder": LADDER, "workers": 1, "heartbeat_every": 0.05}
    calm = coordinate(
        postgresql.url(postgresql.new_database()), str(tmp_path / "calm"), {"qk": {"edge": 0.8}}, **search
    )
    url = postgresql.url(postgresql.new_database())
    restarted = []

    def restart() -> None:
        for count in range(3):
            (gate / f"ticket-{count}").touch()
            wait_for(lambda count=count: len(finished_points(url)) > count, "a trial")  # type: ignore[misc]
            postgresql.restart()
            restarted.append(count)
        (gate / "open").touch()

    thread = threading.Thread(target=restart)
    shaken = coordinate(
        url,
        str(tmp_path / "shaken"),
        {"qk": {"edge": 0.8, "gate": str(gate)}},
        **search,
        meanwhile=lambda studies: thread.start(),
    )
    thread.join()
    assert len(restarted) == 3
    assert shaken.results == calm.results
    assert states(url) == {"COMPLETE": calm.results["qk"].trials}


def test_a_server_that_is_gone_for_a_while_is_waited_for(
    postgresql: PostgreSQL, database: str, tmp_path: Path, coordinators: Coordinators
) -> None:
    url, gate, missed = postgresql.url(database), tmp_path / "gate", threading.Event()
    gate.mkdir()
    search: dict[str, Any] = {
        "variants": {name: {"edge": 9, "gate": str(gate)} for name in ("baseline", "qk")},
        "ladder": LADDER[:2],
        "budget": 1,
        "workers": 1,
        "heartbeat_every": 0.2,
    }

    def away() -> None:
        try:
            wait_for(lambda: states(url, "baseline") == states(url) == {"RUNNING": 1}, "a trial of each")
            postgresql.stop()
            missed.wait(300)
            postgresql.start()
        finally:
            (gate / "open").touch()

    def with_another(studies: dict[str, VariantStudy]) -> None:
        storage = studies["qk"].storage
        assert isinstance(storage, PatientStorage)
        say = storage.say
        storage.say = lambda line: (say(line), missed.set())
        coordinators.start(url=url, directory=str(tmp_path / "other"), **search)
        coordinators.go()
        thread.start()

    thread = threading.Thread(target=away)
    done = coordinate(url, str(tmp_path), **search, meanwhile=with_another)
    thread.join()
    assert coordinators.results() == [done.results]
    assert states(url, "baseline") == states(url) == {"COMPLETE": 1}
    assert done.said.count("the storage does not answer") == 1
    assert done.said.count("the storage answers again") == 1


def frozen(server: PostgreSQL) -> list[int]:
    """Stop every process of the server where it is, so that connections stay open and nothing answers."""
    postmaster = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    pids = [postmaster, *map(int, children)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


@pytest.mark.parametrize("gone", ["stopped", "frozen"])
def test_ctrl_c_ends_a_search_whose_server_is_gone(
    postgresql: PostgreSQL, database: str, tmp_path: Path, coordinators: Coordinators, gone: str
) -> None:
    url = postgresql.url(database)
    process = coordinators.start(
        url=url, directory=str(tmp_path), variants={"qk": {"edge": 0.8, "seconds": 3600}}, ladder=LADDER
    )
    coordinators.go()
    wait_for(lambda: some_study_has(url, TrialState.RUNNING), "a trial")
    pids = []
    try:
        if gone == "frozen":
            pids = frozen(postgresql)
        else:
            postgresql.stop()
        time.sleep(3)  # by then it has noticed; if not, it must end all the same
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)  # seconds; the search itself would wait twice as long
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        if gone == "stopped":
            postgresql.start()
    assert process.returncode != 0
    assert err.splitlines()[-1] == "KeyboardInterrupt"


def test_gives_up_after_its_timeout(postgresql: PostgreSQL, database: str, tmp_path: Path) -> None:
    """And leaves its trials to the next coordinator."""
    url = postgresql.url(database)
    fake = {"qk": {"edge": 0.8, "seconds": 3600}}
    threads = []

    def stop_beneath(studies: dict[str, VariantStudy]) -> None:
        storage = studies["qk"].storage
        assert isinstance(storage, PatientStorage)

        def stop() -> None:
            wait_for(lambda: some_study_has(url, TrialState.RUNNING), "a trial")
            storage.timeout = 2.0
            postgresql.stop()

        threads.append(threading.Thread(target=stop))
        threads[0].start()

    try:
        with pytest.raises(RuntimeError, match=r"^storage=postgresql://redline:\*\*\*@"):
            coordinate(
                url,
                str(tmp_path),
                fake,
                ladder=LADDER,
                meanwhile=stop_beneath,
            )
    finally:
        threads[0].join()
        postgresql.start()
    assert set(states(url)) == {"RUNNING"}
