"""What the servers' commands are started with, and how `redline send` ends where nothing can be sent."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from redline.command_line import user_errors
from redline.commands import send as send_command
from redline.commands.ui import ui
from redline.errors import UserError


def started_with(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[list[str], dict[str, str]]:
    """The words and the environment of MLflow's server."""
    given: list[Any] = []
    monkeypatch.setattr(sys, "argv", ["redline ui", *words])
    monkeypatch.setattr(os, "execve", lambda path, argv, env: given.extend((argv, env)))
    ui()
    return given[0], given[1]


def test_mlflows_server_gets_its_store_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:hunter2@h/d"
    words, environment = started_with(monkeypatch, f"--tracking-uri={url}", "--port=0")
    assert "hunter2" not in str(words)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == url
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", url + "2")
    assert started_with(monkeypatch, "--port=0")[1]["MLFLOW_BACKEND_STORE_URI"] == url + "2"


def test_mlflows_server_answers_to_its_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.server.security_utils import get_allowed_hosts_from_env, is_allowed_host_header

    _, environment = started_with(monkeypatch, "--port=0", "--tracking-uri=sqlite:///x.db")
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", environment["MLFLOW_SERVER_ALLOWED_HOSTS"])
    allowed = get_allowed_hosts_from_env()
    assert allowed is not None
    for host in ("localhost", "localhost:5000", "127.0.0.1:5001", "[::1]:5000"):
        assert is_allowed_host_header(allowed, host)
    for host in ("evil.example", "evil.example:5000", "10.evil.example", "192.168.evil.example:5000", ""):
        assert not is_allowed_host_header(allowed, host)


@pytest.mark.parametrize("words", [["--port=99999"], ["--host=192.0.2.1"], ["--tracking-uri=nonsense"]])
def test_what_no_server_can_be_started_with_is_one_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    with pytest.raises(UserError, match=words[0].partition("=")[0]):
        started_with(monkeypatch, *words)


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("nonsense", 2),
        ("sqlite:////proc/x.db", 2),
        ("http://127.0.0.1:1", 1),
        ("postgresql://u:p@127.0.0.1:1/d", 1),
    ],
)
def test_send_says_where_it_cannot_send(
    uri: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["redline send", f"tracker.mlflow.tracking_uri={uri}"])
    with pytest.raises(SystemExit) as ended, user_errors():
        send_command.send()
    said = capsys.readouterr().err
    assert ended.value.code == status
    assert said.startswith("error: tracker.mlflow.tracking_uri=")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
