"""A search killed while MLflow makes its tables, which takes seconds: the next one finds no half of them."""

import os
import subprocess
import sys

from mlflow import MlflowClient

from redline.training.outbox.sender import open_store

# MLflow itself cannot open what a kill at this statement, amid its migrations, leaves.
KILLED = """
import os, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from redline.training.outbox.sender import open_store
statements = 0
def count(*_):
    global statements
    statements += 1
    if statements == 241:
        os.kill(os.getpid(), 9)
event.listen(Engine, "after_cursor_execute", count)
event.listen(Engine, "commit", count)
open_store(sys.argv[1])
"""


def test_a_kill_while_the_store_is_made_leaves_none(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED, uri], env=environment, cwd=tmp_path, check=False)
    assert killed.returncode == -9
    assert not (tmp_path / "mlflow.db").exists()

    open_store(uri)
    assert MlflowClient(uri).get_experiment_by_name("Default") is not None
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"mlflow.db", "mlflow.db.lock"}, "the half stays for ever"
