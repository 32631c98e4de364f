"""A reader of the output that goes away, Ctrl-C in a script's background, and whose files are made."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEGIN = "import os, signal, sys, time; from redline.command_line import begin_command; begin_command(); "


def python(code: str, **more: object) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_goes_away_ends_nothing(tmp_path: Path, name: str) -> None:
    code = f"[print('x' * 1000, file=sys.{name}, flush=True) for _ in range(500)]; open('done', 'w').close()"
    process = python(code, cwd=tmp_path)
    pipe = getattr(process, name)
    pipe.readline()
    pipe.close()
    assert process.wait(60) == 0
    assert (tmp_path / "done").exists()
    other = process.stderr if name == "stdout" else process.stdout
    assert other is not None
    assert other.read() == ""


def test_what_is_printed_last_arrives() -> None:
    process = python("print('é', end=''); sys.stderr.write('err')")
    assert process.communicate(timeout=60) == ("é", "err")


def test_a_background_job_of_a_script_hears_ctrl_c() -> None:
    code = "\ntry: print('up', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: sys.exit(7)"
    process = python(code, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 7


def test_files_are_for_their_owner(tmp_path: Path) -> None:
    process = python("os.makedirs('a/b'); open('a/b/c', 'w').close()", cwd=tmp_path)
    assert process.wait(60) == 0
    assert [(tmp_path / path).stat().st_mode & 0o777 for path in ("a", "a/b", "a/b/c")] == [
        0o700,
        0o700,
        0o600,
    ]


@pytest.mark.parametrize(
    ("words", "variable"),
    [
        (["dashboard", "STORAGE=postgresql://me:hunter2@h/d"], "REDLINE_STORAGE"),
        (["ui", "TRACKING_URI=postgresql://me:hunter2@h/d"], "MLFLOW_BACKEND_STORE_URI"),
    ],
)
def test_make_passes_an_address_by_the_environment_and_does_not_print_it(
    words: list[str], variable: str, tmp_path: Path
) -> None:
    stand_in = tmp_path / "redline"
    stand_in.write_text(f'#!/bin/sh\ntest "${variable}" = postgresql://me:hunter2@h/d && echo "called $*"\n')
    stand_in.chmod(0o755)
    command = ["make", "--no-print-directory", f"REDLINE={stand_in}", "--old-file=setup", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"called {words[0]}\n"
    assert "hunter2" not in done.stdout + done.stderr


def test_a_search_whose_reader_goes_away_goes_on_to_its_end(shared: Path, tmp_path: Path) -> None:
    small = ["experiment=smoke", "norm=qk", "trainer.max_steps=3", "trainer.accelerator=cpu", "tracker=none"]
    more = [f"data.cache_dir={shared / 'tokens'}", "hydra.sweeper.report_timeout=null", "lr=0.01,0.1"]
    more += ["hydra.sweeper.budget=1", "hydra.sweeper.extend=false"]
    command = [sys.executable, ROOT / "src" / "train.py", "-m", *small, *more]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as search:
        assert search.stdout is not None
        assert search.stderr is not None
        search.stdout.readline()
        search.stdout.close()
        said = search.stderr.read()
    assert (search.returncode, said) == (0, b"")
    assert list(tmp_path.glob("mlruns/searches/*/result.json"))
