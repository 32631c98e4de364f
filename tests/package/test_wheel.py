"""The wheel in an environment without the checkout: `redline …` from any folder."""

import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Redline = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def redline(installed: Path, clean_environment: dict[str, str], tmp_path: Path) -> Redline:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [installed / "redline", *words],
            cwd=tmp_path,
            env=clean_environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


def test_the_wheel_holds_all_of_conf_and_leaves_hydras_plugins_to_others(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"redline/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert conf <= names
    assert "hydra_plugins/max_lr/sweeper.py" in names
    assert "hydra_plugins/__init__.py" not in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"redline", "hydra_plugins"}


def test_what_runs_is_what_was_installed(
    installed: Path, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    asked = "import redline, hydra_plugins.max_lr as max_lr; print(redline.__file__, max_lr.__file__)"
    words = [installed / "python", "-c", asked]
    done = subprocess.run(words, cwd=tmp_path, env=clean_environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(Path(file).is_relative_to(installed.parent) for file in done.stdout.split())


def test_a_search_its_report_and_the_gate(redline: Redline, shared: Path, tmp_path: Path) -> None:
    done = redline(
        *["search", "experiment=smoke", "norm=baseline,qk", "trainer.accelerator=cpu", "lr=0.1,10"],
        *["trainer.max_steps=20", "search.name=small", "hydra.sweeper.report_timeout=null"],
        "hydra.sweeper.extend=false",
        f"data.cache_dir={shared / 'tokens'}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    path = tmp_path / "mlruns/searches/small/result.json"
    assert set(json.loads(path.read_text())["variants"]) == {"baseline", "qk"}

    done = redline("report", "small")
    assert (done.returncode, done.stderr) == (0, "")
    page = Path(done.stdout.removeprefix("report: ").strip())
    assert "baseline" in (tmp_path / page).read_text()

    stored = tmp_path / "stored.json"
    stored.write_text(path.read_text())
    done = redline("gate", "stored.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing got worse" in done.stdout


def test_a_module_of_a_project_of_its_own(redline: Redline, tmp_path: Path) -> None:
    """With its configuration beside it: a search, its result, its report."""
    shutil.copytree(ROOT / "docs/examples", tmp_path, dirs_exist_ok=True)
    done = redline(
        *["search", "--config-dir", "conf", "task=digits", "task.module.batch_norm=false,true", "lr=0.1,30"],
        *["trainer.max_steps=20", "trainer.accelerator=cpu", "tracker=none", "search.name=digits"],
        *["hydra.sweeper.extend=false", "hydra.sweeper.resolution=1.0001", "hydra.sweeper.settled=1"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "report: mlruns" in done.stdout.replace(f"{tmp_path}/", "")
    variants = json.loads((tmp_path / "mlruns/searches/digits/result.json").read_text())["variants"]
    assert set(variants) == {"task.module.batch_norm=False", "task.module.batch_norm=True"}
    for its in variants.values():
        assert (its["max_useful_rung"], its["first_diverged_lr"]) == (0.1, 30)
        assert its["val_loss"] < 1.5  # of an untrained one 2.3


def test_a_users_own_configuration(redline: Redline, tmp_path: Path) -> None:
    mine = tmp_path / "conf/norm/mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# @package norm_strategy\ndefaults: [qk, _self_]\nattn_in: null\n")
    done = redline("train", "--config-dir", str(tmp_path / "conf"), "norm=mine", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "attn_in: null" in done.stdout
