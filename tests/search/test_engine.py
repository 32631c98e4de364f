"""One search from begin to end: what is refused before it begins, and what may go wrong once it has ended."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from coordinate import OPTIONS
from fake_tasks import Does
from fake_trainable import RULES, Fake
from rich.console import Console

from redline.errors import UserError
from redline.search import AtEnd, EndedSearch, Search, SearchResult, Variant
from redline.search.console.display import Display
from redline.search.engine import _do, run_search
from redline.search.workers.pool import Pool, Slot

pytestmark = pytest.mark.usefixtures("own_environment")


def asked(home: Path, name: str | None = "search", **changed: Any) -> Search:
    """``changed``: of the fake, or of the options; the storage is a fresh one in ``home``."""
    fake = {key: value for key, value in changed.items() if key in Fake.__dataclass_fields__}
    options = {key: value for key, value in changed.items() if key not in fake}

    def place(search: str) -> Path:
        directory = home / "searches" / search
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    return Search(
        options=replace(OPTIONS, **{"storage": f"sqlite:///{home / 'optuna.db'}", **options}),
        variants=[Variant("qk", Fake(**{"edge": 0.2, **fake}), RULES)],
        ladder=(0.1, 0.2),
        home=home,
        place=place,
        name=name,
        accelerator="cpu",
    )


def calls(place: Path, what: str) -> int:
    return len(list(place.glob(f"{what}-*")))


def test_a_search_writes_its_result_and_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    result = run_search(asked(home), [Does(says=["report of"])])
    assert result.variants["qk"].max_useful_rung == 0.1
    assert SearchResult.read(home / "searches" / "search" / "result.json") == result
    said = capsys.readouterr().out
    for words in (
        "search search: qk on 2 rungs",
        "preparing qk",
        "done in",
        "max stable LR",
        "report of: search",
    ):
        assert words in said
    study = optuna.load_study(study_name="search/qk", storage=f"sqlite:///{home / 'optuna.db'}")
    assert study.user_attrs["finished"]
    assert study.user_attrs["result"]["max_useful_rung"] == 0.1


@pytest.mark.parametrize(
    "changed",
    [
        {"wrong": "model.width=-1: allowed: numbers above 0"},
        {"seeds": 0},
        {"criterion": "some"},
        {"resolution": 1.0},
        {"budget": 0.0},
        {"cut": 1.0},
        {"min": 2.0, "max": 1.0},
        {"prior": {}},
        {"workers": 0},
        {"retries": -1},
        {"heartbeat_timeout": 1.0},
        {"storage_timeout": 0.0},
        {"report_timeout": 0.0},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_mistake_of_the_users_is_refused_with_nothing_written(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    home = tmp_path / "home"
    with pytest.raises(UserError, match=r"allowed: ") as refused:
        run_search(asked(home, **changed))
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_that_check_finds_is_not_checked_again(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^wrong$"):
        run_search(asked(tmp_path / "home", wrong="wrong", place=str(tmp_path), retries=5))
    assert calls(tmp_path, "check") == 1
    assert not (tmp_path / "home").exists()


def test_a_name_that_another_question_has_is_refused(tmp_path: Path) -> None:
    run_search(asked(tmp_path))
    for key in ("name", "search.name"):
        with pytest.raises(UserError, match=rf"^{key}=search: was begun with other variants"):
            run_search(replace(asked(tmp_path, edge=0.3), name_key=key))


def test_an_option_is_refused_by_what_the_user_calls_it(tmp_path: Path) -> None:
    for prefix in ("", "hydra.sweeper."):
        with pytest.raises(UserError, match=rf"^{prefix}seeds=0: allowed: a whole number from 1"):
            run_search(replace(asked(tmp_path / "home", seeds=0), prefix=prefix))
        with pytest.raises(UserError, match=rf"^{prefix}storage=nonsense: does not open"):
            run_search(replace(asked(tmp_path / "home", storage="nonsense"), prefix=prefix))


def test_a_search_without_a_name_gets_one_and_its_unfinished_one_goes_on(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        run_search(asked(tmp_path, name=None, refuse=0.2))
    again = run_search(asked(tmp_path, name=None))
    (begun,) = (tmp_path / "searches").iterdir()
    assert again.search == begun.name
    assert begun.name.startswith("qk-")


def test_a_trials_mistake_of_the_users_ends_the_search_and_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^lr=0\.1: allowed: others$"):
        run_search(asked(tmp_path, refuse=0.1, workers=1, retries=5))
    assert len(list(tmp_path.glob("searches/search/trials/*/*/try-*"))) == 1


@pytest.mark.parametrize("what", ["check", "facts"])
def test_what_comes_first_is_tried_again_where_it_is_killed(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Were it not for a retry, the machine's lack of memory would be the end of the search."""
    place = tmp_path / "called"
    place.mkdir()
    result = run_search(asked(tmp_path / "home", place=str(place), dies_in={what: 2}, retries=2))
    assert result.variants["qk"].max_useful_rung == 0.1
    assert calls(place, what) == 3
    again = "prepare: crashed (killed by signal SIGKILL), tried again; its log is in "
    assert capsys.readouterr().out.count(again) == (2 if what == "facts" else 0)


@pytest.mark.parametrize(("what", "named"), [("check", "check"), ("facts", "prepare")])
def test_what_is_killed_too_often_ends_the_search(tmp_path: Path, what: str, named: str) -> None:
    place = tmp_path / "called"
    place.mkdir()
    with pytest.raises(RuntimeError, match=rf"^{named} failed \(killed by signal SIGKILL\)") as failed:
        run_search(asked(tmp_path / "home", place=str(place), dies_in={what: 9}, retries=1))
    assert ("; its log is in " in str(failed.value)) == (what == "facts")  # check has no folder yet
    assert calls(place, what) == 2


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool([Slot(0, None)], preload=["fake_tasks"])
    yield pool
    assert pool.slots[0].free, "the task was left behind"


def done_at_end(action: AtEnd, pool: Pool, directory: Path) -> tuple[list[str], bool]:
    """What is said of it, and whether the next one may begin."""
    console = Console(file=io.StringIO(), width=200)
    ended = EndedSearch("search", directory, "sqlite:///none.db", "qk")
    goes_on = _do(action, ended, pool, Display(console))
    assert isinstance(console.file, io.StringIO)
    return [line.split("] ", 1)[1] for line in console.file.getvalue().splitlines()], goes_on


def test_what_is_done_at_the_end_says_its_lines(pool: Pool, tmp_path: Path) -> None:
    said = done_at_end(Does(says=["one", "two"]), pool, tmp_path)
    assert said == (["one: search", "two: search"], True)


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("bug", "RuntimeError: a bug of ours"),
        ("users_mistake", "lr=-1: allowed: numbers above 0"),
        ("die", "killed by signal SIGKILL"),
        ("leave", "exit status 3"),
        ("missing", "KeyError"),
    ],
)
def test_what_fails_at_the_end_is_one_line(pool: Pool, tmp_path: Path, task: str, why: str) -> None:
    (line,), goes_on = done_at_end(Does(task), pool, tmp_path)
    assert line.startswith(f"report: not done ({why}")
    assert line.endswith(f"log: {tmp_path / 'report.log'}); `redline report search` does it")
    assert goes_on


def test_what_takes_too_long_at_the_end_is_ended(pool: Pool, tmp_path: Path) -> None:
    (line,), goes_on = done_at_end(Does("sleep", timeout=1.0), pool, tmp_path)
    assert "took more than 1 s" in line
    assert goes_on


def test_a_process_that_does_not_start_at_the_end_is_one_line(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(pool, "start", refuse)
    (line,), goes_on = done_at_end(Does(), pool, tmp_path)
    assert line.startswith("report: not done (BlockingIOError")
    assert goes_on


def test_ctrl_c_ends_what_is_done_at_the_end_and_not_the_search(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(timeout: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "poll", interrupt)
    (line,), goes_on = done_at_end(Does("sleep"), pool, tmp_path)
    assert line.startswith("report: not done (KeyboardInterrupt")
    assert not goes_on, "the user wants to leave"


def test_a_search_has_its_answer_whatever_goes_wrong_at_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    actions: Sequence[AtEnd] = [Does("die"), Does("bug"), Does(says=["the last"])]
    assert run_search(asked(tmp_path), actions).finished
    said = capsys.readouterr().out
    assert said.count("report: not done") == 2
    assert "the last: search" in said
