"""The sender's process: no training step waits for it, and it outlives the command."""

import json
import os
from contextlib import suppress

from filelock import Timeout

from redline.training.outbox import OUTBOX, Outbox

_NICENESS = 10  # training has priority

if __name__ == "__main__":
    outbox = Outbox(**json.loads(os.environ[OUTBOX]))
    os.nice(_NICENESS)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # `is_held` has it for microseconds.
    with suppress(Timeout), outbox.lock("sender").acquire(timeout=1.0):
        try:
            from redline.training.outbox.sender import Sender  # MLflow takes seconds to import

            Sender(outbox).run()
        except Exception:
            outbox.note_trouble(f"its sender ended: {outbox.folder / 'sender.log'}")
            raise
