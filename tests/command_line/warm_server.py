"""Runs src/train.py again and again without paying for the import of torch each time.

Reads requests as JSON lines, {"arguments", "cwd", "before"}, and runs each in a fork as `python src/train.py`
would be; answers with {"status", "stdout", "stderr"}. ``before`` is Python that the fork executes first.
"""

import json
import os
import runpy
import sys
import tempfile
from pathlib import Path

TRAIN = Path(__file__).parents[2] / "src" / "train.py"
sys.path[0] = str(TRAIN.parent)

import redline.training.single  # noqa: E402, F401


def run(arguments: list[str], cwd: str, before: str) -> None:
    os.chdir(cwd)
    exec(before)
    sys.argv = [str(TRAIN), *arguments]
    runpy.run_path(str(TRAIN), run_name="__main__")


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            pid = os.fork()
            if pid == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                run(**request)
                sys.exit(0)
            _, status = os.waitpid(pid, 0)
            out.seek(0)
            err.seek(0)
            answer = {"status": os.waitstatus_to_exitcode(status), "stdout": out.read(), "stderr": err.read()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
