"""Runs src/train.py again and again without paying for the import of torch each time.

Reads requests as JSON lines, {"arguments", "cwd", "before"}, and runs each in a fork as `python src/train.py`
would be; answers with {"status", "stdout", "stderr"}. ``before`` is Python that the fork executes first.
A search's own processes are forks too, of the one that searches: no server that forks them is started.
"""

import gc
import json
import multiprocessing as mp
import os
import runpy
import sys
import tempfile
import traceback
from collections.abc import Sequence
from multiprocessing.context import ForkContext
from pathlib import Path

TRAIN = Path(__file__).parents[1] / "src" / "train.py"
sys.path[0] = str(TRAIN.parent)

from hydra.core.plugins import Plugins  # noqa: E402

import hydra_plugins.max_lr._search  # noqa: E402, F401
import redline.training.single  # noqa: E402, F401
from redline.search.workers import pool  # noqa: E402


class Forks(ForkContext):
    def set_forkserver_preload(self, module_names: Sequence[str]) -> None:
        """All is imported."""


def run(arguments: list[str], cwd: str, before: str) -> int:
    """The exit status."""
    os.chdir(cwd)
    exec(before)
    sys.argv = [str(TRAIN), *arguments]
    try:
        runpy.run_path(str(TRAIN), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    Plugins.instance()  # Hydra looks for its plugins, once
    mp.get_context = lambda method=None: Forks()  # type: ignore[assignment]
    pool._start_server = lambda: None  # type: ignore[assignment]
    gc.freeze()  # or every fork would copy all of torch to collect it
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            pid = os.fork()
            if pid == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                status = run(**request)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)  # taking an interpreter with torch apart takes seconds
            _, status = os.waitpid(pid, 0)
            out.seek(0)
            err.seek(0)
            answer = {"status": os.waitstatus_to_exitcode(status), "stdout": out.read(), "stderr": err.read()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
