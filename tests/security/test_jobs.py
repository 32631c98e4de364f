"""What a launcher would write of a job has no password in it."""

import os
import pickle

import pytest
from omegaconf import OmegaConf

from redline.commands.job_secrets import masked, take_out_passwords


def test_a_jobs_words_refer_to_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        monkeypatch.setenv(f"REDLINE_JOB_{number}", "")
    words = [
        "-m",
        "norm=qk",
        "hydra.sweeper.storage='postgresql://me:hunter2@h/d'",
        "tracker.mlflow.tracking_uri='postgresql://me:hunter2@h/d?x=1'",
    ]
    hidden = take_out_passwords(words)
    assert "hunter2" not in str(hidden)
    assert hidden[:2] == words[:2]
    given = OmegaConf.from_dotlist(hidden[2:])
    assert given.hydra.sweeper.storage == "postgresql://me:hunter2@h/d"
    assert given.tracker.mlflow.tracking_uri == "postgresql://me:hunter2@h/d?x=1"
    assert os.environ["REDLINE_JOB_1"] == ""


def test_settings_are_masked_and_nothing_else_is_changed() -> None:
    config = OmegaConf.create(
        {
            "hydra": {"words": ["a=b", "s=postgresql://me:hunter2@h/d"], "to": "${name}"},
            "name": "n",
            "pwd": "hunter2",
        }
    )
    OmegaConf.set_readonly(config, True)
    hidden = masked(config)
    assert b"hunter2" not in pickle.dumps(hidden)
    assert OmegaConf.to_container(hidden) == {
        "hydra": {"words": ["a=b", "s=postgresql://me:***@h/d"], "to": "${name}"},
        "name": "n",
        "pwd": "***",
    }
    assert config.pwd == "hunter2"
