"""Jobs beside the trials: killed, they are tried again."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from redline.search.housekeeping import Housekeeping
from rich.console import Console

from redline.search import housekeeping
from redline.search.console.display import Display
from redline.search.variant import Variant
from redline.search.workers.pool import Pool, Slot


@pytest.fixture
def pool(own_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    monkeypatch.setattr(housekeeping, "JOBS", "fake_jobs")
    pool = Pool([Slot(0, None)], preload=["fake_jobs", "omegaconf"])
    yield pool
    pool.stop(pool.slots[0])


def prepare(pool: Pool, place: Path, kills: int) -> tuple[dict[str, str], str]:
    """The precision that preparing gives with one retry, and what was said of it."""
    console = Console(file=io.StringIO(), width=200)
    variant = Variant("qk", (), OmegaConf.create({"place": str(place), "kills": kills}))
    precision = Housekeeping(pool, place, Display(console), retries=1).prepare([variant])
    assert isinstance(console.file, io.StringIO)
    return precision, console.file.getvalue()


def test_a_job_that_was_killed_is_tried_again_and_said_so(pool: Pool, tmp_path: Path) -> None:
    precision, said = prepare(pool, tmp_path, kills=1)
    assert precision == {"qk": "fp32"}
    assert f"prepare: crashed (killed by signal SIGKILL), tried again; its log is in {tmp_path}" in said


def test_one_that_is_killed_too_often_ends_the_search(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"prepare failed \(killed by signal SIGKILL\); its log is in"):
        prepare(pool, tmp_path, kills=2)
    assert len(list(tmp_path.glob("try-*"))) == 2
