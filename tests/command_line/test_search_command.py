"""A whole search from the command line: what it prints, writes, tracks, and how it goes on."""

import os
import random
import signal
import time
from pathlib import Path

import optuna
from mlflow import MlflowClient
from mlflow.entities import Run

from command_helpers import Ask, Finished, Started, completed, result, studies, train, trials

KEYS = {
    "max_useful_lr",
    "max_useful_lr_90",
    "max_useful_rung",
    "max_stable_lr",
    "max_stable_lr_90",
    "max_stable_rung",
    "first_diverged_lr",
    "censored",
    "first_diverged_reason",
    "val_loss",
    "val_perplexity",
    "best_lr",
    "best_val_loss",
    "trials",
    "optimizer_steps",
    "grid_steps",
}


def answers_of(cwd: Path, name: str) -> dict[str, list[object]]:
    """What a search found; its cost depends on which speculative runs ended before they were cancelled."""
    keys = (
        "max_useful_lr",
        "max_useful_rung",
        "max_stable_lr",
        "first_diverged_lr",
        "censored",
        "first_diverged_reason",
        "val_loss",
    )
    return {norm: [its[key] for key in keys] for norm, its in result(cwd, name)["variants"].items()}


def tracked(cwd: Path, search: str) -> list[Run]:
    """The runs of its trials."""
    client = MlflowClient(f"sqlite:///{cwd / 'mlruns' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(search)
    assert experiment is not None
    return [r for r in client.search_runs([experiment.experiment_id]) if "summary" not in r.data.tags]


def test_prints_a_table_and_exits_with_0(finished: Finished) -> None:
    answer = finished.answer
    assert (answer.status, answer.stderr) == (0, "")
    table = answer.stdout.split("largest useful and largest stable learning rate")[1]
    for words in ("ratio to qk", "P(>1)", "perplexity", "stopped by"):
        assert words in table
    found = result(finished.cwd, answer.name)
    for name, entry in found["variants"].items():
        row = next(line for line in table.splitlines() if line.split()[:1] == [name])
        assert f"{entry['max_useful_rung']:g}" in row
        assert f"{entry['val_perplexity']:.2f}" in row
    assert str(finished.cwd / "mlruns" / "searches" / answer.name / "result.json") in answer.stdout


def test_writes_the_result_that_scripts_rely_on(finished: Finished) -> None:
    found = result(finished.cwd, finished.answer.name)
    assert found["search"] == finished.answer.name
    assert found["ladder"] == [0.01, 0.1, 1.0, 10.0]
    assert found["seeds"] == 1
    assert list(found["variants"]) == ["baseline", "qk"]
    for entry in found["variants"].values():
        assert set(entry) >= KEYS
        assert entry["max_useful_rung"] in found["ladder"]
        assert entry["censored"] is None
        assert entry["trials"] <= 4 + 2 * 6  # the ladder may grow
        assert 0 < entry["optimizer_steps"] <= entry["trials"] * 60
        assert entry["grid_steps"] == 4 * 60
        assert 0 < entry["best_val_loss"] <= entry["val_loss"] < 7


def test_the_studies_agree_with_the_result(finished: Finished) -> None:
    found = result(finished.cwd, finished.answer.name)
    its_studies = studies(finished.cwd, finished.answer.name)
    assert set(its_studies) == set(found["variants"])
    for name, study in its_studies.items():
        entry = found["variants"][name]
        assert [trial.state.name for trial in completed(study)] == ["COMPLETE"] * entry["trials"]
        assert study.user_attrs["result"]["max_useful_lr"] == entry["max_useful_lr"]
        # A value too small to learn anything has not diverged for being too large.
        diverged = [
            trial.params["lr"]
            for trial in completed(study)
            if trial.user_attrs["reason"] and trial.params["lr"] > entry["best_lr"]
        ]
        assert min(diverged, default=None) == entry["first_diverged_lr"]


def test_every_trial_is_one_finished_run_in_mlflow_with_its_verdict(finished: Finished) -> None:
    name = finished.answer.name
    runs = {(run.data.tags["norm"], float(run.data.tags["lr"])): run for run in tracked(finished.cwd, name)}
    expected = {}
    for variant, study in studies(finished.cwd, name).items():
        for trial in completed(study):
            told = trial.user_attrs
            expected[variant, trial.params["lr"]] = (told["verdict"], told["reason"] or "")
            # Also of trials that ended before MLflow had their run.
            note = study._storage.get_study_system_attrs(study._study_id)[
                f"dashboard:{trial._trial_id}:note_str:0"
            ]
            assert f"/#/runs/{runs[variant, trial.params['lr']].info.run_id})" in note
    assert set(runs) == set(expected)
    assert len(tracked(finished.cwd, name)) == len(expected)
    for point, verdict in expected.items():
        run = runs[point]
        assert run.info.status == "FINISHED"
        tags = run.data.tags
        assert (tags["verdict"], tags["reason"]) == verdict
        assert (tags["search"], tags["seed"]) == (name, "0")
        assert tags["step"].isdigit()
        assert "train/loss" in run.data.metrics
        assert run.data.params["lr"] == str(point[1])


def test_its_report_is_written_and_kept_in_a_summary_run(finished: Finished) -> None:
    name = finished.answer.name
    page = finished.cwd / "mlruns" / "searches" / name / "report" / "report.html"
    assert f"report: {page}" in finished.answer.stdout
    found = result(finished.cwd, name)["variants"]
    text = page.read_text()
    for entry in found.values():
        assert f">{entry['max_useful_rung']:g}</td>" in text
        assert f">{entry['val_perplexity']:.2f}</td>" in text
    client = MlflowClient(f"sqlite:///{finished.cwd / 'mlruns' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    [summary] = client.search_runs([experiment.experiment_id], "tags.summary = 'true'")
    for variant, entry in found.items():
        assert summary.data.metrics[f"max_useful_lr/{variant}"] == entry["max_useful_lr"]
    kept = {file.path for file in client.list_artifacts(summary.info.run_id)}
    assert {"report.html", "result.json", "loss_against_lr.png", "norm_curves_00_baseline.png"} <= kept


def test_another_question_under_a_used_name_is_refused(
    ask: Ask, finished: Finished, smoke: list[str]
) -> None:
    name = finished.answer.name
    refused = ask(*smoke, f"search.name={name}", "lr=0.1,0.3", cwd=finished.cwd)
    assert refused.status == 2
    assert refused.stderr.startswith(f"error: search.name={name}: was begun with other ")
    assert refused.stderr.count("\n") == 1
    assert "another name" in refused.stderr


def test_a_finished_search_named_again_answers_at_once(
    ask: Ask, finished: Finished, smoke: list[str]
) -> None:
    name = finished.answer.name
    before = result(finished.cwd, name)
    again = ask(*smoke, f"search.name={name}", cwd=finished.cwd)
    assert (again.status, again.name) == (0, name)
    assert result(finished.cwd, name) == before
    assert len(trials(finished.cwd, name, "COMPLETE")) == sum(
        v["trials"] for v in before["variants"].values()
    )


def test_interrupted_and_killed_searches_go_on_to_the_same_answer(
    finished: Finished, smoke: list[str], tmp_path: Path
) -> None:
    """Ctrl-C, then kill -9 amid one of the next trials, then undisturbed: as if nothing had happened."""
    started = Started.train(*smoke, cwd=tmp_path)
    started.until(": stable")
    started.signal_group(signal.SIGINT)
    stopped = started.end()
    name = stopped.name
    assert stopped.status == 1
    assert f"stopped; the same command, or search.name={name}, goes on" in stopped.stdout
    assert "Traceback" not in stopped.stderr
    assert trials(tmp_path, name, "RUNNING") == []
    assert not (tmp_path / "mlruns" / "searches" / name / "result.json").exists()
    kept = trials(tmp_path, name, "COMPLETE")
    assert kept

    started = Started.train(*smoke, cwd=tmp_path)
    begun = len(kept) + random.Random(os.environ.get("REDLINE_TEST_SEED", "1")).randint(1, 2)
    while started.process.poll() is None and len(trials(tmp_path, name, "COMPLETE", "RUNNING")) < begun:
        time.sleep(0.1)
    started.kill_coordinator()
    killed = started.end()
    assert killed.status == -signal.SIGKILL
    assert killed.name == name
    kept_then = trials(tmp_path, name, "COMPLETE")
    assert set(kept) <= set(kept_then)

    done = train(*smoke, cwd=tmp_path)
    assert (done.status, done.stderr) == (0, "")
    assert done.name == name
    complete = trials(tmp_path, name, "COMPLETE")
    assert set(kept_then) <= set(complete)
    assert len(complete) == len(set(complete)), "a finished trial was run again"
    assert trials(tmp_path, name, "RUNNING", "WAITING") == []
    assert answers_of(tmp_path, name) == answers_of(finished.cwd, finished.answer.name)
    # MLflow too has a finished run for every trial, and none that still claims to run.
    statuses = [run.info.status for run in tracked(tmp_path, name)]
    assert statuses.count("FINISHED") >= len(complete)  # a spare one may end as it is cancelled
    assert "RUNNING" not in statuses


def test_the_same_command_after_the_end_begins_a_new_search(finished: Finished, smoke: list[str]) -> None:
    """And Ctrl-C while it still prepares ends it like at any other time."""
    started = Started.train(*smoke, cwd=finished.cwd)
    started.until("] search ")
    started.signal_group(signal.SIGINT)
    stopped = started.end()
    assert stopped.name != finished.answer.name
    assert stopped.status == 1
    assert "goes on" in stopped.stdout
    assert "Traceback" not in stopped.stderr
    assert trials(finished.cwd, stopped.name, "RUNNING") == []


def test_hydras_own_grid_still_works(ask: Ask, smoke: list[str], tmp_path: Path) -> None:
    settings = [word for word in smoke if not word.startswith(("norm=", "hydra.sweeper"))]
    done = ask(
        *settings, "hydra/sweeper=basic", "norm=qk", "lr=0.01,0.02", "trainer.max_steps=3", cwd=tmp_path
    )
    assert done.status == 0, done.stderr
    assert "qk lr=0.01 seed=0: " in done.stdout
    assert "qk lr=0.02 seed=0: " in done.stdout
    assert not (tmp_path / "mlruns" / "optuna.db").exists()


def test_each_variants_tracker_is_served(ask: Ask, smoke: list[str], tmp_path: Path) -> None:
    """Two variants that differ in where their curves go."""
    settings = [word for word in smoke if not word.startswith(("norm=", "hydra.sweeper.workers"))]
    settings += ["hydra.sweeper.workers=1"]  # with two, a spare run may be cancelled
    uris = [f"sqlite:///{tmp_path / name}.db" for name in ("a", "b")]
    settings += ["norm=qk", "lr=0.01,0.02", "trainer.max_steps=3", "search.name=both"]
    done = ask(*settings, f"tracker.mlflow.tracking_uri={','.join(uris)}", cwd=tmp_path)
    assert (done.status, done.stderr) == (0, "")
    for uri in uris:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("both")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        assert {run.info.status for run in runs} == {"FINISHED"}
        variant = f"qk, tracker.mlflow.tracking_uri={uri}"
        assert {run.data.tags["variant"] for run in runs} == {variant}
        expected = {lr for name, lr, _ in trials(tmp_path, "both", "COMPLETE") if name == variant}
        assert {float(run.data.tags["lr"]) for run in runs} == expected != set()


def test_a_mistake_that_only_a_trial_meets_ends_the_search_at_once(
    ask: Ask, smoke: list[str], tmp_path: Path
) -> None:
    """Here a tracker of one's own, which the trial makes first, refuses what it is told."""
    (tmp_path / "picky.py").write_text(PICKY)
    (tmp_path / "conf/tracker").mkdir(parents=True)
    (tmp_path / "conf/tracker/picky.yaml").write_text(
        "# @package tracker.picky\n# Refuses.\n_target_: picky.Picky\n"
    )
    settings = [word for word in smoke if not word.startswith(("norm=", "tracker."))]
    settings += ["tracker=picky", "norm=qk", "lr=0.01,0.02", "hydra.sweeper.workers=1"]
    here = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    done = ask("--config-dir", str(tmp_path / "conf"), *settings, cwd=tmp_path, before=here)
    assert done.status == 2
    assert done.stderr == "error: tracker.picky: not today; allowed: tomorrow\n"
    tries = list((tmp_path / "tries").iterdir())
    assert len(tries) == 1


PICKY = """
import uuid
from pathlib import Path

from lightning.pytorch.loggers.logger import DummyLogger

from redline.errors import UserError


class Picky(DummyLogger):
    def __init__(self, run):
        Path("tries").mkdir(exist_ok=True)
        Path("tries", uuid.uuid4().hex).touch()
        raise UserError("tracker.picky: not today; allowed: tomorrow")
"""


def test_two_terminals_share_one_search(smoke: list[str], tmp_path: Path) -> None:
    """The same command given twice at once, with a name, on a fresh folder."""
    settings = [word for word in smoke if not word.startswith(("norm=", "hydra.sweeper.workers"))]
    settings += ["norm=qk", "hydra.sweeper.workers=1", "search.name=both", "trainer.max_steps=10"]
    both = [Started.train(*settings, cwd=tmp_path) for _ in range(2)]
    answers = [started.end() for started in both]
    assert [answer.status for answer in answers] == [0, 0], [answer.stderr for answer in answers]
    complete = trials(tmp_path, "both", "COMPLETE")
    assert len(complete) == len(set(complete)) == result(tmp_path, "both")["variants"]["qk"]["trials"]
    (study,) = studies(tmp_path, "both").values()
    failures = {t.user_attrs.get("failure") for t in study.trials if t.state == optuna.trial.TrialState.FAIL}
    assert failures <= {"duplicate", "cancelled"}
