"""A run goes on from a checkpoint only if it is the same run, and a checkpoint cannot run code."""

import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from training_helpers import Stopped, train

from redline.errors import UserError
from redline.training.check import check
from redline.training.checkpoints import CHECKPOINT, AtomicCheckpointIO, check_resume


@pytest.fixture(scope="module")
def stopped(run_cfg, tmp_path_factory):
    """The folder of a run of 12 steps that was killed after step 6; its checkpoint is of step 4."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stopped):
        train(run_cfg("schedule=constant"), folder, stop_at=6)
    return folder


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lr=0.5", r"lr: 0\.03 in the checkpoint, 0\.5 asked"),
        ("seed=3", "seed: 0 in the checkpoint, 3 asked"),
        ("model.dropout=0.1", r"model\.dropout: 0\.0 in the checkpoint, 0\.1 asked"),
        ("optimizer=adamw_independent", r"optimizer\.independent: false in the checkpoint, true asked"),
        ("norm=soft_temp", r"norm_strategy\.score.*: null in the checkpoint, 0\.5 asked"),
        ("schedule=cosine", r"schedule\._target_: "),
        ("data.batch_size=5", r"data\.batch_size: 4 in the checkpoint, 5 asked"),
        ("gradient.clip=null", r"gradient\.clip._target_: .*Clip in the checkpoint, null asked"),
        ("trainer.accumulate=2", r"trainer\.accumulate: 1 in the checkpoint, 2 asked"),
        ("trainer.max_steps=3", r"trainer\.max_steps: 12 in the checkpoint, 3 asked"),
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["trainer.resume", "hydra.run.dir"])
def test_another_run_is_named_key_by_key(run_cfg, stopped, override, said, named):
    cfg = run_cfg("schedule=constant", "schedule.warmup_steps=5", override)
    cfg.trainer.resume = str(stopped / CHECKPOINT) if named else None
    with pytest.raises(UserError, match=said) as error:
        check_resume(cfg, stopped)
    key = f"trainer.resume={stopped / CHECKPOINT}" if named else f"hydra.run.dir={stopped}"
    assert str(error.value).startswith(f"{key}: of another run (")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "override", ["monitor=off", "trainer.checkpoint_every=2", "divergence.no_return=null", "search.name=x"]
)
def test_what_decides_nothing_may_change(run_cfg, stopped, override):
    check_resume(run_cfg("schedule=constant", override), stopped)


def test_steps_are_added_only_where_the_schedule_of_those_done_stays(run_cfg, stopped, tmp_path):
    longer = run_cfg("schedule=constant", "trainer.max_steps=20")
    check_resume(longer, stopped)
    with pytest.raises(Stopped):
        train(run_cfg("schedule=cosine"), tmp_path, stop_at=10)
    with pytest.raises(UserError, match=r"max_steps: 12 .* 20 asked.*schedule=constant"):
        check_resume(run_cfg("schedule=cosine", "trainer.max_steps=20"), tmp_path)


def test_a_finished_runs_folder_is_not_gone_on_from_by_accident(run_cfg, tmp_path):
    cfg = run_cfg("schedule=constant")
    train(cfg, tmp_path)
    with pytest.raises(UserError, match=r"^hydra\.run\.dir=.*: holds a finished run; .*trainer\.resume="):
        check(cfg, tmp_path)
    cfg.trainer.max_steps, cfg.trainer.resume = 14, str(tmp_path / CHECKPOINT)
    check(cfg, tmp_path)


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("where", ["run", "state_dict", "plain pickle", "other zip"])
def test_a_crafted_checkpoint_runs_no_code(run_cfg, stopped, tmp_path, where):
    mark, path = tmp_path / "touched", tmp_path / CHECKPOINT
    state = torch.load(stopped / CHECKPOINT, weights_only=True)
    if where == "plain pickle":
        path.write_bytes(pickle.dumps(Touch(mark)))
    elif where == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Touch(mark)))
    else:
        (state["state_dict"] if where == "state_dict" else state)["extra"] = Touch(mark)
        files = AtomicCheckpointIO()  # with the right digest
        files.save_checkpoint(state, path)
        files.teardown()
    for directory, resume in ((tmp_path / "new", str(path)), (tmp_path, None)):
        cfg = run_cfg("schedule=constant")
        cfg.trainer.resume = resume
        with pytest.raises(UserError, match="weights and plain values") if resume else suppress(UserError):
            check_resume(cfg, directory)
        with suppress(UserError):  # or it begins anew: most of these are no whole checkpoints
            train(cfg, directory)
    assert not mark.exists()
