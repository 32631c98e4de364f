"""The command `redline`: what it says of itself, of mistakes, and how little it imports for that."""

import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
COMMANDS = ["train", "search", "plan", "report", "gate", "dashboard", "ui", "send"]
HEAVY = {"torch", "lightning", "mlflow"}


def redline(*words: str, cwd: Path, python: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *python, "-m", "redline", *words]
    return subprocess.run(
        command, cwd=cwd, env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, timeout=600
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["search", "--help"],
        ["search", "--cfg", "job", "norm=qk"],
        ["search", "norm=qk,qkv", "hydra.sweeper.dry_run=true"],
        ["plan", "--help"],
        ["send", "--help"],
        ["ui", "--help"],
        ["gate", "--help"],
        ["dashboard", "--help"],
        ["report", "--help"],
    ],
    ids=" ".join,
)
def test_answers_without_the_slow_imports(words: list[str], tmp_path: Path) -> None:
    done = redline(*words, cwd=tmp_path, python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert not {line.rpartition("|")[2].strip() for line in lines} & HEAVY
    assert not list(tmp_path.iterdir())


def test_help_names_every_command(tmp_path: Path) -> None:
    out = redline("--help", cwd=tmp_path).stdout
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  ")] == COMMANDS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["redline: no command given", "allowed: train, search, plan"]),
        (["serch", "norm=qk"], ["redline serch: unknown command (did you mean search?)", "allowed: train"]),
        (["train", "norm=qkw"], ["norm=qkw: unknown (did you mean qk?)", "allowed: attn_none, baseline"]),
        (["search", "norm=qk,qkw"], ["norm=qkw: unknown (did you mean qk?)", "allowed: attn_none, baseline"]),
        (["send", "tracker=csv"], ["tracker=csv: has no outbox", "allowed here: mlflow"]),
        (["send", "modle.width=3"], ["modle", "did you mean model?"]),
        (["report", "--nmae"], ["redline report: unrecognized arguments: --nmae", "--help"]),
        (["ui", "--port=x"], ["redline ui", "--port", "invalid int value: 'x'"]),
        (["gate"], ["redline gate", "required: BASELINE"]),
        (["dashboard", "sqlite:///gone.db"], ["gone.db"]),
    ],
    ids=lambda value: " ".join(value)[:20],
)
def test_a_mistake_is_one_line_and_status_two(words: list[str], said: list[str], tmp_path: Path) -> None:
    done = redline(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for part in said:
        assert part in done.stderr
    assert not list(tmp_path.iterdir())


def test_nothing_waits_to_be_sent(tmp_path: Path) -> None:
    done = redline("send", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "all is sent\n"
