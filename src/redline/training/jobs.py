"""What a search has done in processes of their own: preparing, training a trial, sending, tidying up.

Each takes a payload of plain values and configurations, and gives back plain values.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from redline.data import open_corpus
from redline.training.build import precision_of
from redline.training.check import check
from redline.training.run import quieten, run
from redline.training.watch import Progress

if TYPE_CHECKING:
    from redline.training.outbox.sender import Sender

Send = Callable[[dict[str, Any]], None]
_REPORT_EVERY = 0.5  # seconds
_FAREWELL = 1.0  # seconds for what is left when the search ends


def prepare(payload: dict[str, Any], send: Send) -> dict[str, Any]:
    """Check every variant and make its tokens, before anything trains.

    Payload: ``cfgs`` (name -> configuration). Result: ``precision`` (name -> format). Raises UserError.
    """
    quieten()
    cfgs: dict[str, DictConfig] = payload["cfgs"]
    for cfg in cfgs.values():
        check(cfg)
    precision = {}
    for name, cfg in cfgs.items():
        send({"doing": f"preparing the data of {name}"})
        open_corpus(cfg)
        precision[name] = precision_of(cfg)
    return {"precision": precision}


def trial(payload: dict[str, Any], send: Send) -> dict[str, Any]:
    """Train one point. Payload: ``cfg``, ``directory``, ``tags``, ``experiment``. Result: the outcome."""
    last_sent = 0.0

    def report(progress: Progress) -> None:
        nonlocal last_sent
        now = time.monotonic()
        if now - last_sent >= _REPORT_EVERY or progress.step == progress.max_steps:
            last_sent = now
            send(asdict(progress))

    outcome = run(
        payload["cfg"],
        Path(payload["directory"]),
        tags=payload["tags"],
        experiment=payload["experiment"],
        report=report,
        in_search=True,
    )
    return outcome.to_dict()


def send(payload: dict[str, Any], send: Send) -> dict[str, Any]:
    """Send what the trials leave in the outbox, until SIGTERM. Payload: ``tracker``."""
    sender = _sender(payload["tracker"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        sender.run_for_ever(lambda words: send({"doing": words}))
    finally:
        sender.drain(_FAREWELL)
        os._exit(0)  # taking an interpreter with torch apart takes seconds


def tidy(payload: dict[str, Any], send: Send) -> dict[str, Any]:
    """Send what is left, and make the tracker agree with the search.

    Payload: ``tracker``; ``experiment``, whose trials have all ended; ``verdicts``, run's key -> the rule
    that the search's verdict names. Result: ``run_ids``, run's key -> MLflow's id, and
    ``experiment_id``, as far as MLflow has them.
    """
    sender = _sender(payload["tracker"])
    for key, reason in payload["verdicts"].items():
        sender.retag(key, payload["experiment"], {"verdict": "diverged", "reason": reason})
    if sender.drain(_outbox_spec(payload["tracker"]).send_timeout):
        send({"doing": sender.what_waits()})
    else:
        sender.end_forgotten(payload["experiment"])
    experiment = payload["experiment"]
    return {"run_ids": sender.run_ids(experiment), "experiment_id": sender.experiment_id(experiment)}


def _sender(tracker: DictConfig) -> "Sender":
    # Trials do without MLflow, whose import takes seconds where no server has done it for them.
    from redline.training.outbox.sender import Sender

    quieten()
    return Sender.of(_outbox_spec(tracker))


def _outbox_spec(tracker: DictConfig) -> DictConfig:
    return next(spec for spec in tracker.values() if "outbox" in spec)
