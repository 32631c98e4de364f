"""Two trainables that share no code with ours are searched, killed, resumed, reported and gated."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from api_helpers import PROGRAMS, Started, alive, finished, python, trials, wait_for
from filelock import FileLock
from optuna.trial import TrialState

import gate


@dataclass(frozen=True)
class Searched:
    """A search whose trial and whose own process were killed, and that the same command took up again."""

    cwd: str
    said: str
    status: int
    before: list[Any]  # what was finished when it was killed
    trials: int  # that had been started by then
    killed: list[str]  # folders of the trials that were under way

    @property
    def folder(self) -> Path:
        return Path(self.cwd)


def killed_and_resumed(cwd: Path, program: str, study: str) -> Searched:
    cwd.mkdir()
    started = Started.python(PROGRAMS / program, cwd)

    def waiting() -> dict[Path, int]:
        paths = sorted((cwd / "mlruns/searches").glob("*/trials/*/*/waiting"))
        pids = {path.parent: int(path.read_text()) for path in paths}
        return {folder: pid for folder, pid in pids.items() if alive(pid)}

    def all_wait() -> bool:
        """Nothing can change by itself, so no trial is cancelled meanwhile."""
        if len(list(cwd.glob("ended-*"))) < gate.FREE:
            return False
        running = [trial for trial in trials(cwd, study) if trial.state == TrialState.RUNNING]
        return 0 < len(running) == len(waiting())

    started.until(all_wait, "all trials to wait")
    os.kill(next(iter(waiting().values())), signal.SIGKILL)
    started.until(lambda: started.heard("crashed (killed by signal SIGKILL), tried again"), "a killed trial")
    started.until(all_wait, "all trials to wait again")
    before, count, under_way = finished(cwd, study), len(trials(cwd, study)), waiting()
    started.kill()
    wait_for(lambda: not any(map(alive, under_way.values())), "the trials to end with their search")
    (cwd / "go").touch()
    again = python(PROGRAMS / program, cwd=cwd)
    said = again.stdout + again.stderr
    return Searched(str(cwd), said, again.returncode, before, count, list(map(str, under_way)))


@pytest.fixture(scope="session")
def searched(shared: Path) -> Callable[[str], Searched]:
    """By name: the searches are run once, by whichever worker comes first."""

    def search(name: str) -> Searched:
        program, study = {
            "logistic": ("logistic.py", "logistic/logistic"),
            "module": ("own_module.py", "module/module"),
        }[name]
        answer = shared / f"api-{name}.json"
        with FileLock(shared / f"api-{name}.lock"):
            if not answer.exists():
                found = killed_and_resumed(shared / f"api-{name}", program, study)
                answer.write_text(json.dumps(asdict(found)))
        return Searched(**json.loads(answer.read_text()))

    return search


NAMES = pytest.mark.parametrize("name", ["logistic", "module"])


@NAMES
def test_the_same_command_goes_on_and_repeats_no_finished_trial(
    searched: Callable[[str], Searched], name: str
) -> None:
    its = searched(name)
    assert its.status == 0, its.said
    assert len(its.before) >= 2
    after = finished(its.folder, f"{name}/{name}")
    known = [params for _, params in after]
    assert [list(entry) for entry in after[: len(its.before)]] == its.before
    assert all(known.count(params) == 1 for params in known)
    started = [trial.params for trial in trials(its.folder, f"{name}/{name}")[its.trials :]]
    assert started
    assert not [params for _, params in its.before if params in started]
    failures = [trial.user_attrs.get("failure") for trial in trials(its.folder, f"{name}/{name}")]
    assert failures.count("crash") == 1
    assert "lost" in failures
    assert not [its for its in trials(its.folder, f"{name}/{name}") if its.state == TrialState.RUNNING]


@NAMES
def test_the_search_has_an_edge(searched: Callable[[str], Searched], name: str) -> None:
    its = searched(name)
    written = json.loads((its.folder / f"mlruns/searches/{name}/result.json").read_text())
    entry = written["variants"][name]
    assert (written["key"], written["label"]) == ("lr", "LR")
    assert entry["censored"] is None
    assert entry["max_useful_rung"] < entry["first_diverged_lr"]
    assert f"edge {entry['max_useful_rung']}" in its.said


def test_it_is_the_edge_of_the_undisturbed_search(
    searched: Callable[[str], Searched], tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    undisturbed = python(PROGRAMS / "logistic.py", cwd=tmp_path)
    assert undisturbed.returncode == 0, undisturbed.stderr
    folders = [searched("logistic").folder, tmp_path]
    entries = [
        json.loads((cwd / "mlruns/searches/logistic/result.json").read_text())["variants"]["logistic"]
        for cwd in folders
    ]
    for key in ("max_useful_rung", "first_diverged_lr", "first_diverged_reason"):
        assert entries[0][key] == entries[1][key]
    losses = [entry["val_losses"] for entry in entries]
    both = losses[0].keys() & losses[1].keys()  # which seeds are needed is a matter of who ends first
    assert both
    assert all(losses[0][seed] == losses[1][seed] for seed in both)


def test_a_module_resumes_from_its_own_checkpoint(
    searched: Callable[[str], Searched], tmp_path: Path
) -> None:
    import own_module

    from redline.search import Trial
    from redline.search.workers.tasks import run_trial
    from redline.stability import Outcome

    its = searched("module")
    (tmp_path / "go").touch()
    by_folder = {
        f"lr={trial.params['lr']:g}-seed={trial.params['seed']}": trial
        for trial in trials(its.folder, "module/module")
        if trial.state == TrialState.COMPLETE
    }
    resumed = [Path(folder) for folder in its.killed if Path(folder).name in by_folder]
    assert resumed
    for folder in resumed:
        assert "resumed: True" in (folder / "trial.log").read_text()
        trial = by_folder[folder.name]
        told = Outcome.from_dict(trial.user_attrs["outcome"])
        value, seed = trial.params["lr"], trial.params["seed"]
        alone = Trial(value, seed, tmp_path / folder.name, own_module.OwnModule().facts())
        cwd, handler = os.getcwd(), signal.getsignal(signal.SIGTERM)
        os.chdir(tmp_path)
        try:
            whole = run_trial(
                own_module.OwnModule(), alone, its_rules(own_module.STEPS), lambda message: None
            )
        finally:
            os.chdir(cwd)
            signal.signal(signal.SIGTERM, handler)
        assert told == whole


def its_rules(max_steps: int) -> dict[str, Any]:
    from redline.api import divergence_rules

    return divergence_rules({}, max_steps)


@NAMES
def test_the_report_is_written(searched: Callable[[str], Searched], name: str, tmp_path: Path) -> None:
    its = searched(name)
    done = python("-m", "redline.report", name, cwd=its.folder)
    assert done.returncode == 0, done.stderr
    page = its.folder / f"mlruns/searches/{name}/report/report.html"
    assert name in page.read_text(encoding="utf-8")


@NAMES
def test_the_search_is_loaded(
    searched: Callable[[str], Searched], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redline

    monkeypatch.chdir(searched(name).folder)
    search = redline.load_search(name)
    assert search.name == name
    assert [variant.name for variant in search.variants] == [name]


@NAMES
def test_the_gate_says_that_nothing_got_worse(searched: Callable[[str], Searched], name: str) -> None:
    its = searched(name)
    result = its.folder / f"mlruns/searches/{name}/result.json"
    done = python("-m", "redline.gate", result, result, cwd=its.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing got worse" in done.stdout
