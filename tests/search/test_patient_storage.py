"""A storage that does not answer is waited for, and what it did although it seemed not to is done once."""

import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from search_helpers import attributes, outcome, reopened

from redline.errors import OutageError
from redline.search.policy.points import Point
from redline.search.store import patient_storage
from redline.search.store.owner import Owner
from redline.search.store.patient_storage import PatientStorage
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy

LADDER = [0.1, 0.2, 0.4]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TICK", "_SLOW", "_AGAIN_EVERY"):
        monkeypatch.setattr(patient_storage, name, 0.01)


@pytest.fixture
def storage(url: str) -> PatientStorage:
    return open_storage(url, timeout=60.0, key="hydra.sweeper.storage")


@pytest.fixture
def said(storage: PatientStorage) -> list[str]:
    lines: list[str] = []
    storage.say = lines.append
    return lines


@pytest.fixture
def study(storage: PatientStorage) -> VariantStudy:
    return VariantStudy(storage, "search/qk", attributes(LADDER))


def connection_lost() -> StorageInternalError:
    """As Optuna raises it."""
    lost = sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("server closed the connection"))
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = lost
    return error


def lose_every_first_answer(storage: PatientStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked is done, but only the second time it is asked one hears of it."""

    def deaf(operation: Callable[..., Any]) -> Callable[..., Any]:
        tries = 0

        def ask(*args: Any, **kwargs: Any) -> Any:
            nonlocal tries
            tries += 1
            error = None
            try:
                answer = operation(*args, **kwargs)
            except Exception as raised:  # noqa: BLE001
                error = raised
            if tries % 2:
                raise connection_lost()
            if error is not None:
                raise error
            return answer

        return ask

    for name in vars(type(storage._storage)):
        if name.startswith(("create_", "set_", "get_all")):
            monkeypatch.setattr(storage._storage, name, deaf(getattr(storage._storage, name)))


def test_lost_answers_change_nothing(
    storage: PatientStorage, study: VariantStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_every_first_answer(storage, monkeypatch)
    claims = [study.claim(Point(rung, 0), Owner.here()) for rung in range(3)]
    running = [trial for trial in study.trials() if trial.state == TrialState.RUNNING]
    assert [claim.number for claim in claims if claim] == [trial.number for trial in running]
    assert study.claim(Point(0, 0), Owner.here()) is None
    stable, diverged, crashed = (claim for claim in claims if claim)
    study.note(stable, "heartbeat", 3)
    assert study.finish(stable, outcome(0.1))
    assert study.finish(diverged, outcome(0.2, reason="blow_up"))
    study.fail(crashed._trial_id, "crash")
    state = study.state()
    assert set(state.outcomes) == {Point(0, 0), Point(1, 0)}
    assert (state.running, state.crashes) == ({}, {Point(2, 0): 1})
    assert {trial.user_attrs["failure"] for trial in study.trials() if trial.state == TrialState.FAIL} == {
        "duplicate",
        "crash",
    }


def test_an_answer_lost_while_others_declared_the_trial_lost_is_no_success(
    storage: PatientStorage, study: VariantStudy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = study.claim(Point(0, 0), Owner.here())
    assert claim is not None
    end = storage._storage.set_trial_state_values

    def too_late(*args: Any, **kwargs: Any) -> bool:
        monkeypatch.setattr(storage._storage, "set_trial_state_values", end)
        reopened(study, url).fail(claim._trial_id, "lost")
        raise connection_lost()

    monkeypatch.setattr(storage._storage, "set_trial_state_values", too_late)
    assert not study.finish(claim, outcome(0.1))
    assert study.state().outcomes == {}


def test_says_once_that_it_is_gone_and_once_that_it_is_back(
    storage: PatientStorage, study: VariantStudy, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, tries = storage._storage.get_study_user_attrs, 0

    def gone(study_id: int) -> dict[str, Any]:
        nonlocal tries
        tries += 1
        if tries < 5:
            raise connection_lost()
        return ask(study_id)

    monkeypatch.setattr(storage._storage, "get_study_user_attrs", gone)
    assert study.study.user_attrs["key"] == "lr"
    gone_then, back = said
    assert (
        gone_then
        == "the storage does not answer (server closed the connection); waiting for it, at most 60 s"
    )
    assert re.fullmatch(r"the storage answers again, after \d+ s", back)


@contextmanager
def every_connection(storage: PatientStorage, statements: list[str]) -> Iterator[None]:
    """Runs the last of ``statements`` on each before it is used."""
    engine = storage._storage._backend.engine  # type: ignore[attr-defined]

    def prepare(connection: sqlite3.Connection, *_: Any) -> None:
        connection.execute(statements[-1]).fetchall()

    sqlalchemy.event.listen(engine, "checkout", prepare)
    try:
        yield
    finally:
        sqlalchemy.event.remove(engine, "checkout", prepare)


def release_when_told(said: list[str], release: Callable[[], None]) -> threading.Thread:
    """Once the storage has been said not to answer, it is made to."""

    def watch() -> None:
        deadline = time.monotonic() + 300
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        release()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_locked_file_is_waited_for(
    storage: PatientStorage, study: VariantStudy, said: list[str], url: str
) -> None:
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    release = release_when_told(said, other.rollback)
    with every_connection(storage, ["PRAGMA busy_timeout = 10"]):
        assert study.claim(Point(0, 0), Owner.here()) is not None
    release.join()
    other.close()
    assert "database is locked" in said[0]
    assert len(said) == 2
    assert len([trial for trial in study.trials() if trial.state == TrialState.RUNNING]) == 1


def test_a_full_disk_is_waited_for(storage: PatientStorage, study: VariantStudy, said: list[str]) -> None:
    limit = ["PRAGMA max_page_count = 1"]
    release = release_when_told(said, lambda: limit.append("PRAGMA max_page_count = 1000000"))
    with every_connection(storage, limit):
        study.study.set_user_attr("long", "x" * 100_000)
    release.join()
    assert "database or disk is full" in said[0]
    assert len(said) == 2
    assert len(study.study.user_attrs["long"]) == 100_000


def test_gives_up_in_one_line_after_its_timeout(
    storage: PatientStorage, study: VariantStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise connection_lost()

    monkeypatch.setattr(storage._storage, "get_all_trials", gone)
    storage.timeout = 0.1
    with pytest.raises(OutageError, match=r"^hydra\.sweeper\.storage=sqlite:///.*has not answered") as error:
        study.state()
    assert "server closed the connection" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mistake_in_what_is_asked_is_not_asked_again(
    storage: PatientStorage, study: VariantStudy, said: list[str], url: str
) -> None:
    with pytest.raises(KeyError):
        storage.get_study_id_from_name("no such study")
    with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
        file.execute("DROP TABLE trial_user_attributes")
    with pytest.raises(StorageInternalError):
        study.claim(Point(0, 0), Owner.here())
    assert said == []


def test_what_blocks_for_long_holds_up_neither_others_work_nor_ctrl_c(
    storage: PatientStorage, study: VariantStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    never, worked = threading.Event(), 0

    def meanwhile() -> None:
        nonlocal worked
        worked += 1
        if worked == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(storage._storage, "get_all_trials", lambda *_, **__: never.wait(600))
    storage.meanwhile = meanwhile
    with pytest.raises(KeyboardInterrupt):
        study.state()
    with pytest.raises(OutageError), storage.briefly(0.1):
        study.state()
    assert worked == 3
    assert storage.timeout == 60.0
    never.set()
