"""A checkpoint that a kill, a full disk or a dying one damaged: found out, never gone on from."""

import errno
import os
import random
import subprocess
import sys
import threading

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
path, files = pathlib.Path(sys.argv[1]), AtomicCheckpointIO()
files.save_checkpoint({"step": 1}, path)
files.wait()
os.fsync = lambda _: os.kill(os.getpid(), 9)
files.save_checkpoint({"step": 2}, path)
files.wait()
"""


def test_a_kill_while_one_is_written_leaves_the_one_before(tmp_path):
    path = tmp_path / "run" / CHECKPOINT
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, path], env=environment, check=False)
    assert killed.returncode == -9
    assert len(list(path.parent.iterdir())) == 2
    assert torch.load(path) == {"step": 1}

    files = AtomicCheckpointIO()
    files.save_checkpoint({"step": 3}, path)
    files.teardown()
    assert torch.load(path) == {"step": 3}
    assert [left.name for left in path.parent.iterdir()] == [CHECKPOINT], "the half stays for ever"


def test_a_full_disk_is_told_and_leaves_the_one_before(run_cfg, tmp_path, monkeypatch, caplog):
    whole, losses = train(run_cfg(), tmp_path / "whole")
    fsync, room = os.fsync, [True, False, True]  # of the checkpoints of steps 4, 8 and 12
    steps = []

    def full(file):
        steps.append(torch.load(tmp_path / "run" / CHECKPOINT)["global_step"] if steps else 0)
        if not room[len(steps) - 1]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    assert train(run_cfg("trainer.keep_checkpoint=false"), tmp_path / "run") == (whole, losses)
    assert steps == [0, 4, 4], "the one before is gone"
    assert caplog.text.count("last.ckpt: cannot be written ([Errno 28] No space left on device)") == 1


def test_what_is_written_is_what_was_when_it_was_asked_for(tmp_path, monkeypatch):
    path, weight, may_write = tmp_path / CHECKPOINT, torch.zeros(1000), threading.Event()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: may_write.wait() and fsync(file))
    files = AtomicCheckpointIO()
    files.save_checkpoint({"weight": weight, "steps": {"done": 1}}, path)
    weight += 1
    assert not path.exists()
    may_write.set()
    files.teardown()
    assert torch.equal(torch.load(path)["weight"], torch.zeros(1000))
