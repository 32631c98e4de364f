"""What a search has done in processes of their own: preparing, training a trial.

Each takes a payload of plain values and configurations, and gives back plain values.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from redline.data import open_corpus
from redline.training.build import precision_of
from redline.training.check import check
from redline.training.run import quieten, run
from redline.training.watch import Progress

Send = Callable[[dict[str, Any]], None]
_REPORT_EVERY = 0.5  # seconds


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
    )
    return outcome.to_dict()
