"""The report at a search's end can go wrong in any way, and costs the search a line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redline.search.publish import Publishing, publish

from redline.search import publish as publish_module
from redline.search.workers.pool import Pool, Slot


@pytest.fixture
def pool(own_environment: None) -> Iterator[Pool]:
    pool = Pool([Slot(0, None)], preload=["fake_jobs", "omegaconf"])
    yield pool
    assert pool.slots[0].free, "the job was left behind"


def said_of(
    job: str, pool: Pool, place: Path, monkeypatch: pytest.MonkeyPatch, patience: float | None = 600.0
) -> list[str]:
    monkeypatch.setattr(publish_module, "_JOB", f"fake_jobs:{job}")
    said: list[str] = []
    publish(Publishing("sqlite:///none.db", "qk", patience), pool, "search", place, None, said.append)
    return said


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ("bug", "RuntimeError: a bug of ours"),
        ("users_mistake", "lr=-1: allowed: numbers above 0"),
        ("die", "killed by signal SIGKILL"),
        ("leave", "exit status 3"),
        ("missing", "AttributeError"),
    ],
)
def test_a_report_that_fails_is_one_line(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, why: str
) -> None:
    [line] = said_of(job, pool, tmp_path, monkeypatch)
    assert line.startswith("report: not written (")
    assert why in line
    assert "`make report SEARCH=search` writes it" in line


def test_one_that_takes_too_long_is_ended(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [line] = said_of("sleep", pool, tmp_path, monkeypatch, patience=1.0)
    assert "took more than 1 s" in line


def test_ctrl_c_meanwhile_ends_the_report_and_not_the_search(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(timeout: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "poll", interrupt)
    [line] = said_of("sleep", pool, tmp_path, monkeypatch)
    assert line.startswith("report: not written (KeyboardInterrupt)")


def test_no_patience_is_no_report(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said_of("bug", pool, tmp_path, monkeypatch, patience=None) == []
    assert not (tmp_path / "report.log").exists()
