"""The sender as a process of its own: no training step waits for it, and it outlives the command.

The end of a run, of a search, and `redline send` wait for it here.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from filelock import Timeout

from redline.secrets import without_password
from redline.training.outbox.folder import Outbox, run_page

_NICENESS = 10  # training has priority
_POLL = 0.1  # seconds
_started: list[subprocess.Popen[bytes]] = []  # Python warns if a running one is garbage-collected


def start_sender(outbox: Outbox) -> subprocess.Popen[bytes] | None:
    """Start the outbox's sender where none is alive; None where there is one, or no process can be had."""
    with suppress(OSError):
        if outbox.has_sender:
            return None
        with (outbox.folder / "sender.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "redline.training.outbox.process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C is for the run: its end is still to be sent
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        _started[:] = [its for its in _started if its.poll() is None] + [process]
        assert process.stdin is not None
        # Not as an argument, which everybody on the machine could read: there may be a password in it.
        with process.stdin as stdin:
            stdin.write(json.dumps(asdict(outbox)).encode())
        return process
    return None


def drain(tracker: Mapping[str, Any], seconds: float | None = None) -> str | None:
    """Wait while what ended runs logged is sent, at most ``seconds`` (None: the tracker's ``send_timeout``).

    Ends at once where the store does not take it. ``tracker`` is the group of the configuration. Gives a line
    for the user; None: all is sent.
    """
    outbox = Outbox.of(tracker)
    if outbox is None:
        return None
    until = time.monotonic() + (outbox.send_timeout if seconds is None else seconds)
    known, sender, why = outbox.trouble(), None, "it is slow"
    while (waiting := outbox.waiting()) and time.monotonic() < until:
        trouble = outbox.trouble()
        if trouble is not None and trouble != known:
            why = trouble[0]
            break
        if not outbox.has_sender:
            if sender is not None and sender.poll() is not None:
                why = f"its sender ended: {outbox.folder / 'sender.log'}"
                break
            sender = sender or start_sender(outbox)
        time.sleep(_POLL)
    return outbox.waits(why, waiting) if waiting else None


@dataclass(frozen=True)
class Finished:
    """``line``: for the user, where the curves are shown or what is wrong. ``pages``: a variant and a trial's
    number -> the address of its run.
    """

    line: str | None = None
    pages: Mapping[tuple[str, str], str] = field(default_factory=dict)


def finish(tracker: Mapping[str, Any], experiment: str) -> Finished:
    """At a search's end: `drain`, and have MLflow know that none of the search's runs runs any more.

    Imports MLflow.
    """
    outbox, line = Outbox.of(tracker), drain(tracker)
    if outbox is None or line is not None:
        return Finished(line)
    from redline.training.outbox.sender import Sender
    from redline.training.outbox.store import in_one_line

    try:
        runs = Sender(outbox).end_forgotten(experiment)
    # Drivers, proxies and servers raise what they like.
    except Exception as error:  # noqa: BLE001
        return Finished(f"{outbox.store}: runs that were lost may be shown as running ({in_one_line(error)})")
    ui = tracker["mlflow"].get("ui")
    if not runs or ui is None:
        return Finished()
    # Unless it is told otherwise the UI opens on its pages for language models in use.
    view = "workflowType=machine_learning&compareRunsMode=CHART"
    experiment_page = f"#/experiments/{runs[0].info.experiment_id}/runs?{view}"
    line = f"curves: redline ui, then {without_password(ui).rstrip('/')}/{experiment_page}"
    pages = {
        (tags["variant"], tags["trial"]): run_page(ui, its.info.run_id)
        for its in runs
        if {"variant", "trial"} <= (tags := its.data.tags).keys()
    }
    return Finished(line, pages)


def main() -> None:
    outbox = Outbox(**json.load(sys.stdin))
    os.nice(_NICENESS)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    while True:
        try:
            with outbox.lock("sender").acquire(timeout=1.0):  # `has_sender` holds it for microseconds
                from redline.training.outbox.sender import Sender  # MLflow takes seconds to import

                Sender(outbox).run()
        except Timeout:
            return
        # A run that began while the lock was still held has started no other sender.
        if not any(run.is_open for run in outbox.runs()):
            return


if __name__ == "__main__":
    main()
