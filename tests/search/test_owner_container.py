"""A container of the same name on the same machine, whose processes nobody else sees."""

import json
import os
import subprocess
import sys

import pytest

from redline.search.store.owner import Owner

PRINT_OWNER = """
import json
from dataclasses import asdict
from redline.search.store.owner import Owner
print(json.dumps(asdict(Owner.here())), flush=True)
input()
"""
ISOLATED = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


def test_an_owner_in_another_container_is_not_gone() -> None:
    process = subprocess.Popen(
        [*ISOLATED, sys.executable, "-c", PRINT_OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = process.stdout.readline()
    if not said:
        pytest.skip("process namespaces are not permitted here")
    assert not Owner(**json.loads(said)).is_gone()
    process.communicate("\n")
