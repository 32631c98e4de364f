"""A checkpoint that a kill, a full disk or a dying one damaged: found out, never gone on from."""

import os
import random
import subprocess
import sys

import pytest
import torch
from training_helpers import Stopped, train

from redline.errors import UserError
from redline.training.checkpoints import CHECKPOINT, AtomicCheckpointIO


def halved(content):
    return content[: len(content) // 2]


def emptied(content):
    return b""


def zeroed_page(content):
    middle = len(content) // 2
    return content[:middle] + bytes(4096) + content[middle + 4096 :]


def flipped_bit(content):
    place = random.Random(1).randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = [halved, emptied, zeroed_page, flipped_bit]


@pytest.fixture
def damaged(run_cfg, tmp_path, request):
    """A run that was killed, with its checkpoint damaged."""
    directory = tmp_path / "damaged"
    with pytest.raises(Stopped):
        train(run_cfg(), directory, stop_at=6)
    path = directory / CHECKPOINT
    path.write_bytes(request.param(path.read_bytes()))
    return directory


@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
def test_the_run_begins_anew(run_cfg, tmp_path, damaged, caplog):
    whole, losses = train(run_cfg(), tmp_path / "whole")
    assert train(run_cfg(), damaged) == (whole, losses)
    assert f"{damaged / CHECKPOINT}: damaged; the run begins anew" in caplog.text


@pytest.mark.parametrize("damaged", [flipped_bit], indirect=True)
def test_one_that_the_user_named_is_their_mistake(run_cfg, damaged):
    cfg = run_cfg(f"trainer.resume={damaged / CHECKPOINT}")
    with pytest.raises(UserError, match=r"^trainer\.resume=.*last\.ckpt: damaged; allowed: "):
        train(cfg, damaged)


KILLED_WHILE_WRITING = """
import os, pathlib, sys, torch
from redline.training.checkpoints import AtomicCheckpointIO
path = pathlib.Path(sys.argv[1])
AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
os.fsync = lambda _: os.kill(os.getpid(), 9)
AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
"""


def test_a_kill_while_one_is_written_leaves_the_one_before(tmp_path):
    path = tmp_path / "run" / CHECKPOINT
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, path], env=environment, check=False)
    assert killed.returncode == -9
    assert len(list(path.parent.iterdir())) == 2
    assert torch.load(path) == {"step": 1}

    AtomicCheckpointIO().save_checkpoint({"step": 3}, path)
    assert torch.load(path) == {"step": 3}
    assert [left.name for left in path.parent.iterdir()] == [CHECKPOINT], "the half stays for ever"
