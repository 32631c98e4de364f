"""Outcomes made by hand, and a search without processes: workers that finish in any order."""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from redline.search.policy.points import Point
from redline.search.policy.state import Question
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy
from redline.search.trainable import Facts
from redline.stability import Cut, Outcome


def outcome(
    value: float = 0.1,
    seed: int = 0,
    *,
    reason: str | None = None,
    val_loss: float | None = 4.0,
    steps: int = 10,
) -> Outcome:
    return Outcome(
        value=value,
        seed=seed,
        reason=reason,
        step=steps - 1,
        optimizer_steps=steps,
        val_loss=val_loss,
        initial_loss=6.0,
        train_loss=4.0,
        numbers={} if val_loss is None else {"perplexity": math.exp(val_loss)},
    )


def cut_outcome(value: float = 0.1, seed: int = 0, *, expected: float = 5.5, steps: int = 4) -> Outcome:
    """Of a run that the search ended early."""
    its = outcome(value, seed, val_loss=None, steps=steps)
    return replace(its, cut=Cut(expected, spread=0.25))


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 300) -> None:
    """``seconds`` only turn a hang into a failure."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def open_gate_after(gate: Path, condition: Callable[[], object], what: str) -> threading.Thread:
    """A gate that holds the trials of a `Fake` until then."""
    gate.mkdir()

    def watch() -> None:
        try:
            wait_for(lambda: bool(condition()), what)
        finally:
            (gate / "open").touch()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def attributes(ladder: Sequence[float], **changed: Any) -> dict[str, Any]:
    """Of a study, as `open_studies` gives them."""
    return {
        "fingerprint": "asked",
        "ladder": list(ladder),
        "seeds": 1,
        "key": "lr",
        "label": "LR",
        "search": "search",
        "variant": "qk",
        "is_short": False,
        "criterion": "useful",
        "lost_share": 0.25,
        "claim": None,
        "recipe": {},
        "facts": asdict(Facts(max_steps=10)),
        **changed,
    }


def reopened(study: VariantStudy, url: str) -> VariantStudy:
    """The same study as another process sees it."""
    return VariantStudy(open_storage(url, timeout=60.0), study.name, {}, study.first_seed)
