"""Waiting until an outbox is sent: at the end of a run, of a search, and for `redline send`."""

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redline.training.outbox.folder import Outbox, in_one_line
from redline.training.outbox.process import start_sender

_POLL = 0.1  # seconds


@dataclass(frozen=True)
class Left:
    """Ended runs that were ``sent``, and that still wait; for these a ``line`` for the user."""

    store: str = ""
    sent: int = 0
    waiting: int = 0
    line: str | None = None


def drain(tracker: Mapping[str, Any], seconds: float | None = None) -> Left:
    """Wait while what ended runs logged is sent, at most ``seconds`` (None: the tracker's ``send_timeout``).

    Ends at once where the store does not take it. ``tracker``: the group of the configuration.
    """
    outbox = Outbox.of(tracker)
    if outbox is None:
        return Left()
    until = time.monotonic() + (outbox.send_timeout if seconds is None else seconds)
    before, known = outbox.waiting(), outbox.trouble()
    sender: subprocess.Popen[bytes] | None = None
    why = "it is slow"
    while waiting := outbox.waiting():
        trouble = outbox.trouble()
        if trouble is not None and trouble != known:
            why = trouble[0]
            break
        if not outbox.has_sender:
            if sender is not None and sender.poll() is not None:
                why = f"its sender ended: {outbox.folder / 'sender.log'}"
                break
            sender = sender or start_sender(outbox)
        if time.monotonic() > until:
            break
        time.sleep(_POLL)
    line = waiting_text(outbox, why) if waiting else None
    return Left(outbox.store, max(0, before - waiting), waiting, line)


def finish(tracker: Mapping[str, Any], experiment: str) -> str | None:
    """At a search's end: wait until its runs are sent, and have MLflow know that none runs any more.

    Gives a line for the user: where the curves are shown, or that something still waits. Imports MLflow.
    """
    outbox = Outbox.of(tracker)
    if outbox is None:
        return None
    left = drain(tracker)
    if left.waiting:
        return left.line
    from redline.training.outbox.store import end_forgotten, open_store

    written = {run.key for run in outbox.runs()}
    try:
        client = open_store(outbox.tracking_uri)
        end_forgotten(client, experiment, written)
        found = client.get_experiment_by_name(experiment)
    # Drivers, proxies and servers raise what they like.
    except Exception as error:  # noqa: BLE001
        return f"{outbox.store}: runs that were lost may be shown as running ({in_one_line(error)})"
    ui = tracker["mlflow"]["ui"]
    if found is None or ui is None:
        return None
    # Unless it is told otherwise the UI opens on its pages for language models in use.
    view = "workflowType=machine_learning&compareRunsMode=CHART"
    return f"curves: redline ui, then {ui.rstrip('/')}/#/experiments/{found.experiment_id}/runs?{view}"


def waiting_text(outbox: Outbox, why: str) -> str:
    return (
        f"{outbox.store}: does not take all metrics now ({why}); they wait in {outbox.folder}, "
        "and the next run or `redline send` sends them"
    )
