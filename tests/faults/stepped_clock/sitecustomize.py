"""On the path of a process under test: its wall clock is off by the seconds that a file holds.

Not libfaketime: CI has only Python, and this shifts what our code asks for, `time.time`, and no monotonic
clock. What C code reads for itself (Optuna's dates of a trial) stays as it is.
"""

import os
import time
from pathlib import Path

_time, _time_ns = time.time, time.time_ns
_file = Path(os.environ["REDLINE_FAULTS_CLOCK"])


def _offset() -> int:
    try:
        return int(_file.read_text())
    except (OSError, ValueError):  # no step so far, or one being written
        return 0


time.time = lambda: _time() + _offset()
time.time_ns = lambda: _time_ns() + _offset() * 1_000_000_000
