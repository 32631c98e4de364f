"""A job's command: how it ends, and how it is ended."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from search_helpers import wait_for

from redline.search.workers.cluster_job import run_command

# Writes down every SIGTERM, and ends when it may after the first.
ENDS_SLOWLY = """
import signal, sys, time
from pathlib import Path

def hear(*_):
    with open("heard", "a") as heard:
        heard.write("SIGTERM ")

signal.signal(signal.SIGTERM, hear)
Path("ready").touch()
deadline = time.monotonic() + 300
while not (Path("heard").exists() and Path("go").exists()) and time.monotonic() < deadline:
    time.sleep(0.01)
Path("ended").touch()
sys.exit(1)
"""


@pytest.fixture
def slow(tmp_path: Path) -> list[str]:
    return ["-c", ENDS_SLOWLY]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A job leaves its process' signals as it found them."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


def signal_once_ready(folder: Path, *numbers: int) -> None:
    """Send signals to this process once the command listens; it may end when all are sent."""

    def send() -> None:
        wait_for((folder / "ready").exists, "the command")
        for number in numbers:
            os.kill(os.getpid(), number)
            wait_for((folder / "heard").exists, "the first to be heard")
            time.sleep(0.1)  # a moment apart, in which a second could be passed on
        (folder / "go").touch()

    threading.Thread(target=send, daemon=True).start()


def test_gives_the_commands_status_and_last_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIDDEN", "1")
    monkeypatch.setenv("SEEN", "1")
    program = (
        "import os, sys; print(os.getcwd(), 'HIDDEN' in os.environ, 'SEEN' in os.environ);"
        "print('first\\nerror: last', file=sys.stderr); sys.exit(2)"
    )
    assert run_command(["-c", program], str(tmp_path), ["HIDDEN"], None) == (2, "error: last")
    out, err = capfd.readouterr()
    assert out == f"{tmp_path} False True\n"
    assert err == "first\nerror: last\n"


def test_a_silent_command_has_no_last_words(tmp_path: Path) -> None:
    assert run_command(["-c", ""], str(tmp_path), [], None) == (0, "")


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_several_signals_reach_the_command_as_one_and_it_is_waited_for(
    slow: list[str], tmp_path: Path, first: int
) -> None:
    signal_once_ready(tmp_path, first, signal.SIGINT, signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        run_command(slow, str(tmp_path), [], None)
    assert left.value.code == 128 + first
    assert (tmp_path / "heard").read_text() == "SIGTERM "
    assert (tmp_path / "ended").exists()


def test_what_a_launchers_own_signal_raises_ends_the_command_too(slow: list[str], tmp_path: Path) -> None:
    """Submitit raises from its handler of SIGUSR2, before a time limit or a requeue."""

    def requeue(number: int, frame: FrameType | None) -> None:
        raise RuntimeError("requeued")

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        signal_once_ready(tmp_path, signal.SIGUSR2, signal.SIGTERM)
        with pytest.raises(RuntimeError, match="requeued"):
            run_command(slow, str(tmp_path), [], None)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (tmp_path / "heard").read_text() == "SIGTERM "
    assert (tmp_path / "ended").exists()
