"""What starts without torch, and the simplest ways in."""

import re
import subprocess
import sys
from pathlib import Path

from command_helpers import TRAIN, Ask

HEAVY = {"torch", "lightning", "mlflow", "pandas", "tokenizers", "datasets", "optuna", "sqlalchemy"}


def imported(*arguments: str, cwd: Path) -> tuple[set[str], str]:
    """The top-level modules that a command imports, and its output."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", TRAIN, *arguments], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names = {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "hydra" in names
    return {name.partition(".")[0] for name in names}, done.stdout


def test_help_names_the_variants_and_imports_nothing_heavy(tmp_path: Path) -> None:
    modules, out = imported("--help", cwd=tmp_path)
    assert not modules & HEAVY
    assert len(modules) < 250  # 136 where this was written; each costs time, which is not measured here
    for words in ("norm: attn_none, baseline", "qk_cap", "experiment: demo, ", "lr: 0.03"):
        assert words in out


def test_the_composed_configuration_is_shown_without_torch(tmp_path: Path) -> None:
    modules, out = imported("--cfg", "job", "norm=qkv", "lr=0.05", cwd=tmp_path)
    assert not modules & HEAVY
    assert "lr: 0.05" in out
    assert "attn_in: null" in out
    assert not list(tmp_path.iterdir())


def test_any_number_of_the_configuration_can_be_searched(ask: Ask, tmp_path: Path) -> None:
    words = ["norm=qk,qkv", "hydra.sweeper.key=optimizer.weight_decay", "hydra.sweeper.dry_run=true"]
    done = ask("-m", *words, "optimizer.weight_decay=0.01,0.1,1.0", cwd=tmp_path)
    assert (done.status, done.stderr) == (0, "")
    assert "ladder: 0.01, 0.1, 1 (3 rungs)" in done.stdout
    for norm in ("qk", "qkv"):
        assert f"{norm}: about " in done.stdout
    refused = ask("-m", *words, cwd=tmp_path)
    assert refused.status == 2
    assert refused.stderr.startswith("error: optimizer.weight_decay: has no ladder; allowed ")


def test_one_run_trains_and_says_how_it_ended(ask: Ask, tmp_path: Path, shared: Path) -> None:
    done = ask(
        "experiment=smoke",
        "norm=qkv",
        "lr=0.03",
        "trainer.max_steps=3",
        "trainer.precision=fp32",
        f"data.cache_dir={shared / 'tokens'}",
        cwd=tmp_path,
    )
    assert done.status == 0, done.stderr
    assert "qkv lr=0.03 seed=0: " in done.stdout
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "mlruns" / "runs").rglob("last.ckpt"))


def test_a_dry_run_says_what_a_search_would_cost_and_runs_nothing(tmp_path: Path) -> None:
    modules, out = imported(
        "-m",
        "norm=qk,qkv",
        "lr=0.01,0.02,0.04",
        "hydra.sweeper.seeds=3",
        "hydra.sweeper.dry_run=true",
        cwd=tmp_path,
    )
    assert "ladder: 0.01, 0.02, 0.04 (3 rungs)" in out
    for norm in ("qk", "qkv"):
        assert re.search(rf"^{norm}: about [0-9.]+ runs of 400 steps \(.*\).*; the grid: 9 runs$", out, re.M)
    assert re.search(r"^together about \d+ optimizer steps, the grid 7200: \d+%", out, re.M)
    assert not modules & {"torch", "lightning", "mlflow"}
    assert not list(tmp_path.iterdir())
