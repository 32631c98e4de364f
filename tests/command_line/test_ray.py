"""A search by Ray's jobs, on a Ray of this machine. `make test-ray` installs it, into a folder of its own."""

import os
from pathlib import Path

import pytest

from command_helpers import ROOT, result, train, trials

RAY = ROOT / ".venv" / "ray"


@pytest.mark.skipif(not (RAY / "ray").is_dir(), reason="Ray is not installed: make test-ray")
def test_two_jobs_search_together(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(RAY), prepend=os.pathsep)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # or Ray would leave a token in the home folder
    done = train(
        *["-m", "experiment=smoke", "norm=qk", "lr=0.1,10", "search.name=rays"],
        *["trainer.max_steps=3", "trainer.accelerator=cpu", "trainer.precision=fp32"],
        *["hydra/launcher=ray", "+hydra.launcher.ray.init.include_dashboard=false"],
        *["hydra.sweeper.jobs=2", "hydra.sweeper.workers=1", f"data.cache_dir={shared / 'tokens'}"],
        cwd=tmp_path,
    )
    assert done.status == 0, done.stderr
    assert "by 2 job(s) through ray" in done.stdout
    assert f"result: {tmp_path}/mlruns/searches/rays/result.json" in done.stdout
    complete = trials(tmp_path, "rays", "COMPLETE")
    assert len(complete) == len(set(complete)) == result(tmp_path, "rays")["variants"]["qk"]["trials"]
