"""What a search has done in child processes: checking, preparing, and a trial."""

import json
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FrameType
from typing import Any

from redline.errors import UserError
from redline.search.trainable import Facts, Trainable, Trial
from redline.search.workers.pool import Send
from redline.stability import Outcome, Progress, Watch, build_rules

CURVE = "curve.bin"  # in a trial's directory: the steps that it has reported


def check(trainables: Mapping[str, Trainable], send: Send) -> dict[str, Mapping[str, Any]]:
    """Find what is wrong with the settings; gives what decides outcomes, by variant. Raises UserError."""
    for name, trainable in trainables.items():
        send(f"checking {name}")
        trainable.check()
    return {
        name: _plain(f"settings of {name}", trainable.settings()) for name, trainable in trainables.items()
    }


def _plain(what: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return json.loads(json.dumps(values))
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: {error}; allowed: what JSON can hold") from None


def prepare(trainables: Mapping[str, Trainable], send: Send) -> dict[str, Facts]:
    """What is known of the runs before the first one, by variant. Raises UserError."""
    facts = {}
    for name, trainable in trainables.items():
        send(f"preparing {name}")
        its = trainable.facts()
        facts[name] = replace(its, recipe=_plain(f"recipe of {name}", its.recipe))
    return facts


def run_trial(trainable: Trainable, trial: Trial, rules: Mapping[str, Any], send: Send) -> Outcome:
    """Train, and judge by those of ``rules`` that need no other run. Raises UserError; else it crashed."""
    trial.directory.mkdir(parents=True, exist_ok=True)
    watch = Watch(
        build_rules(rules, object), _now_and_then(send), trial.directory / CURVE, trial.facts.max_steps
    )

    def cancel(number: int, frame: FrameType | None) -> None:
        watch.cancelled = True

    signal.signal(signal.SIGTERM, cancel)
    started = time.monotonic()
    trial = replace(trial, watch=watch)
    outcome = trial.outcome(trainable.run(trial))
    if trial.cancelled:  # by another one than the search, which listens no more
        raise RuntimeError("ended by SIGTERM")
    return replace(outcome, seconds=time.monotonic() - started)


_EVERY = 0.5  # seconds between two messages of a trial


def _now_and_then(send: Send) -> Callable[[Progress], None]:
    last = 0.0

    def tell(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY:
            last = now
            send(progress)

    return tell
