"""A full disk is one line that says how to go on; other errors of files are ours and keep their traceback."""

import errno
import os

import pytest

from redline.command_line import user_errors


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`user_errors` sets it for Hydra; later tests' commands must not inherit it."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")


@pytest.mark.parametrize("named", [True, False])
def test_a_full_disk_is_one_line(named: bool, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["result.json"] if named else []
    with pytest.raises(SystemExit) as ended, user_errors():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *where)
    assert ended.value.code == 1
    said = "No space left on device; the same command goes on when there is room"
    assert capsys.readouterr().err == f"error: {'result.json: ' if named else ''}{said}\n"


def test_any_other_error_of_a_file_is_let_through() -> None:
    with pytest.raises(FileNotFoundError), user_errors():
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")
