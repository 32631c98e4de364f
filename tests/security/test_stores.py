"""Stores, folders, servers and ports that cannot be used: one line, soon, and nothing is left."""

import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from redline.command_line import Parser, port, user_errors
from redline.dashboard.__main__ import only_ours
from redline.errors import UserError
from redline.files import check_writable
from redline.hosts import host_names, is_ours
from redline.report.load import load_search
from redline.search.store.notes import write_trial_note
from redline.search.store.storage import check_storage
from redline.stores import check_tracking_uri, reach_store


@pytest.fixture
def silent_server() -> Iterator[int]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("no database")
    yield
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


BAD = [
    "http://x",
    "nonsense",
    "",
    "sqlite:////proc/x.db",
    "sqlite:////dev/null/x.db",
    "sqlite:////nonexistent/x.db",
    "sqlite:///README.md",
    "sqlite:///.",
    f"sqlite:///{'n' * 300}.db",
    "postgresql://me:hunter2@127.0.0.1:1/d",
]


@pytest.mark.parametrize("url", BAD)
def test_a_storage_that_cannot_be_opened_is_told_soon(url: str) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=r"^KEY=.*: does not open .*; allowed: ") as refused:
        check_storage(url, "KEY")
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert time.monotonic() - started < 9


def test_a_server_that_says_nothing_is_not_waited_for(silent_server: int) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=r"^KEY=postgresql://\*\*\*@.*: does not open"):
        check_storage(f"postgresql://me@127.0.0.1:{silent_server}/d", "KEY")
    with pytest.raises(OSError):  # noqa: PT011
        reach_store(f"http://127.0.0.1:{silent_server}")
    assert time.monotonic() - started < 19


@pytest.mark.parametrize("uri", [*BAD[1:-1], "./mlruns", "5"])
def test_an_address_of_mlflow_that_is_none_is_told(uri: str) -> None:
    with pytest.raises(UserError, match=r"^KEY=.*allowed: sqlite"):
        check_tracking_uri(uri, "KEY")


def test_a_report_names_the_option_that_was_typed() -> None:
    with pytest.raises(UserError, match=r"^--storage=sqlite:///gone\.db: not there"):
        load_search(storage="sqlite:///gone.db", tracking_uri="none", prefix="--")


@pytest.mark.parametrize("folder", ["", "/proc/x", "/dev/null/x", "README.md", "README.md/x", "n" * 300])
def test_a_folder_that_cannot_be_written_is_named(folder: str) -> None:
    with pytest.raises(UserError, match=rf"^KEY={folder}: cannot be made or written \(.+\); allowed: "):
        check_writable(folder, "KEY")


def test_a_folder_that_can_be_made_is_not_left() -> None:
    check_writable("a/b/c", "KEY")


@pytest.mark.parametrize("path", ["README.md/x", "n" * 300, "."])
def test_any_other_path_that_fails_is_one_line_and_status_2(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, user_errors():
        Path(path).write_text("")
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith(f"error: {path}: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("number", ["99999", "-1", "x", "65536"])
def test_a_port_has_limits(number: str) -> None:
    parser = Parser()
    parser.add_argument("--port", type=port)
    with pytest.raises(UserError, match="--port"):
        parser.parse_args([f"--port={number}"])


def asked(header: str | None, host: str = "localhost") -> str:
    """The status of an answer to a request with this ``Host``."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ["HTTP_HOST"] = header
    if header is None:
        del environ["HTTP_HOST"]
    said: list[str] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    list(only_ours(application, host)(environ, lambda status, _: said.append(status)))
    return said[0]


@pytest.mark.parametrize("header", ["localhost:8080", "LOCALHOST", "127.0.0.1:9", "[::1]:8080", "box:8080"])
def test_a_server_answers_to_its_names(header: str) -> None:
    assert asked(header, "box") == "200 OK"


@pytest.mark.parametrize(
    "header",
    [None, "", "evil.example", "evil.example:8080", "localhost.evil.example", "10.evil.example", "::1"],
)
def test_a_server_answers_to_no_other(header: str | None) -> None:
    assert asked(header).startswith("403")


def test_a_server_for_everybody_has_its_machines_name() -> None:
    assert is_ours(f"{socket.gethostname()}:8080", "0.0.0.0")
    assert not is_ours("evil.example:8080", "0.0.0.0")
    assert "0.0.0.0" in host_names("0.0.0.0")


def test_a_variants_name_is_text_in_a_note() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    trial.suggest_float("lr", 0.1, 0.1)
    trial.suggest_int("seed", 0, 0)
    of = {"variant": "![x](http://evil/y)<img src=z>\n# q", "key": "lr"}
    write_trial_note(storage, study._study_id, storage.get_trial(trial._trial_id), of, None)
    notes = storage.get_study_system_attrs(study._study_id)
    note = next(its for its in notes.values() if "evil" in str(its))
    assert note.startswith(r"**\!\[x\]\(http://evil/y\)\<img src=z\> \# q**, lr 0.1")


def test_a_folder_that_another_process_takes_away_again_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, calls = tmp_path / "a/b", []

    def file_in(dir: Path) -> Any:
        calls.append(dir)
        if len(calls) == 1:  # what the other one does when it has looked
            dir.rmdir()
        return temporary_file(dir=dir)

    temporary_file = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", file_in)
    check_writable(folder, "KEY")
    assert len(calls) == 2
    assert not (tmp_path / "a").exists()
