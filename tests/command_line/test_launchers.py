"""Searches by the jobs of Hydra's launchers. Slurm is a stand-in here; submitit's local jobs are real."""

import os
import shutil
import signal
import time
from pathlib import Path

from command_helpers import Ask, Finished, Started, result, train, trials

SMALL = [
    *["-m", "experiment=smoke", "norm=qk", "trainer.max_steps=3", "trainer.accelerator=cpu"],
    "hydra.sweeper.report_timeout=null",
]


def commands_of_jobs(cwd: Path) -> list[int]:
    """Process ids of the searches that jobs have started in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"hydra.sweeper.jobs=null" in words and (process / "cwd").readlink() == cwd:
                found.append(int(process.name))
        except OSError:
            continue  # it has just ended
    return found


def test_two_jobs_find_what_one_process_finds(finished: Finished, smoke: list[str], tmp_path: Path) -> None:
    # As one process with two workers gives them, so that sums round the same.
    threads_of_each = max(1, len(os.sched_getaffinity(0)) // 2)
    done = train(
        *smoke,
        "hydra.sweeper.workers=1",
        f"trainer.threads={threads_of_each}",
        "hydra/launcher=submitit_local",
        "hydra.sweeper.jobs=2",
        cwd=tmp_path,
    )
    assert (done.status, done.stderr) == (0, "")
    assert "by 2 job(s) through submitit_local" in done.stdout
    name = done.name
    assert f"{name}: largest useful and largest stable learning rate" in done.stdout
    assert str(tmp_path / "mlruns" / "searches" / name / "result.json") in done.stdout
    found, expected = result(tmp_path, name), result(finished.cwd, finished.answer.name)
    assert list(found["variants"]) == list(expected["variants"])
    for variant, entry in expected["variants"].items():
        for key in ("max_useful_rung", "first_diverged_lr", "first_diverged_reason", "val_loss"):
            assert found["variants"][variant][key] == entry[key]
    complete = trials(tmp_path, name, "COMPLETE")
    assert len(complete) == len(set(complete)) == sum(v["trials"] for v in found["variants"].values())
    assert trials(tmp_path, name, "RUNNING", "WAITING") == []
    logs = list((tmp_path / "mlruns" / "searches" / name / ".submitit").glob("*/*_0_log.out"))
    assert len(logs) == 2
    for log in logs:
        assert f"] search {name}: " in log.read_text()


def test_jobs_that_end_before_the_search_give_status_1_and_no_stale_result(
    finished: Finished, smoke: list[str], tmp_path: Path
) -> None:
    """Here a finished search is asked for again, and its one job is killed as it starts."""
    shutil.copytree(finished.cwd / "mlruns", tmp_path / "mlruns")
    name = finished.answer.name
    started = Started.train(*smoke, f"search.name={name}", "hydra/launcher=submitit_local", cwd=tmp_path)
    deadline = time.monotonic() + 600
    while not (jobs := commands_of_jobs(tmp_path)) and time.monotonic() < deadline:
        assert started.process.poll() is None
        time.sleep(0.05)
    for job in jobs:
        os.kill(job, signal.SIGKILL)
    ended = started.end()
    assert ended.status == 1
    assert ended.stderr.startswith(f"error: search {name}: the jobs of hydra/launcher=submitit_local ended")
    assert ended.stderr.endswith(f"; the same command, or search.name={name}, goes on\n")
    assert "exit status -9" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "largest useful and largest stable learning rate" not in ended.stdout


def test_a_mistake_that_only_a_job_finds_is_the_users_all_the_same(ask: Ask, tmp_path: Path) -> None:
    """One that the submitting process is made to overlook here. And an option may follow the overrides."""
    blind = "import hydra_plugins.max_lr._search as search; search._check = lambda *_: None"
    words = [*SMALL[1:], "hydra.sweeper.criterion=most", "hydra/launcher=submitit_local", "-m"]
    answer = ask(*words, cwd=tmp_path, before=blind)
    assert answer.status == 2, answer
    assert answer.stderr.startswith("error: hydra.sweeper.criterion=most: allowed: ")
    assert answer.stderr.count("\n") == 1


def test_without_slurm_its_launcher_says_so(ask: Ask, tmp_path: Path) -> None:
    nowhere = f"import os; os.environ['PATH'] = {str(tmp_path)!r}"
    answer = ask(*SMALL, "hydra/launcher=submitit_slurm", cwd=tmp_path, before=nowhere)
    assert answer.status == 1
    assert answer.stderr.startswith("error: search ")
    assert "are you indeed on a slurm cluster?" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert "Traceback" not in answer.stdout


def test_slurm_gets_the_launchers_settings_and_its_refusal_is_shown(ask: Ask, tmp_path: Path) -> None:
    """An sbatch that keeps what it is given and refuses it."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in (
        ("srun", "#!/bin/sh\n"),
        ("sbatch", "#!/bin/sh\ncp $1 asked.sh\necho 'sbatch: error: invalid partition: x' >&2\nexit 1\n"),
    ):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    answer = ask(
        *SMALL,
        'search.name="it\'s"',
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=x",
        "hydra.launcher.gpus_per_node=8",
        "hydra.sweeper.jobs=3",
        cwd=tmp_path,
        before=f"import os; os.environ['PATH'] = {str(programs)!r} + ':' + os.environ['PATH']",
    )
    assert answer.status == 1
    sbatchs_own, ours = answer.stderr.splitlines()
    assert ours.startswith("error: search it's: ")
    assert sbatchs_own in ours
    asked = (tmp_path / "asked.sh").read_text()
    assert "--partition=x\n" in asked
    assert "--gpus-per-node=8\n" in asked
    assert "--array=0-2%3\n" in asked
    assert "searches/it" in asked
