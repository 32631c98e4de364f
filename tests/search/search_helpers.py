"""Outcomes made by hand, and a search without processes: workers that finish in any order."""

import math
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from redline.config import shipped
from redline.search.policy.points import Point
from redline.search.policy.prior import read_prior
from redline.search.policy.question import Question
from redline.search.policy.state import SearchState, search_state
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


PRIOR = read_prior(OmegaConf.to_container(shipped("hydra/sweeper/max_lr").prior), "prior")
FLOOR, BEST = 6.0, 4.0  # nats, of made-up runs
STEPS = 10


def question(ladder: Sequence[float], seeds: int = 1, **changed: Any) -> Question:
    """What a search asks by default, but that the ladder stays as it is."""
    known: dict[str, Any] = {
        "criterion": "useful",
        "lost_share": 0.25,
        "resolution": 1.5,
        "settled": 1.01,
        "budget": None,
        "extend": False,
        "low": None,
        "high": None,
        "prior": PRIOR,
    }
    return Question(tuple(ladder), seeds, **{**known, **changed})


@dataclass(frozen=True)
class MadeUp:
    """A variant whose runs rise from the best loss to the floor, as an arctangent does, with a quarter lost
    at ``useful``, and diverge from ``breaks`` on. Each seed's curve is shifted by its own factor.
    """

    useful: float
    breaks: float = math.inf
    width: float = 0.25  # in log LR
    factors: Sequence[float] = (1.0,) * 9

    def run(self, value: float, seed: int) -> Outcome:
        value_there = value / self.factors[seed]
        if value_there >= self.breaks:
            return outcome(value, seed, reason="blow_up", val_loss=None, steps=STEPS // 2)
        share = 0.5 + math.atan(math.log(value_there / self.useful) / self.width - 1) / math.pi
        return outcome(value, seed, val_loss=BEST + (FLOOR - BEST) * share, steps=STEPS)


def searched(
    its: MadeUp,
    asked: Question,
    *,
    workers: int = 1,
    luck: random.Random | None = None,
    crashes: Collection[float] = (),
) -> SearchState:
    """Search to the end with so many workers, whose runs end in any order. Runs at ``crashes`` never end.

    Asserts that no point is asked for again.
    """
    outcomes: dict[Point, Outcome] = {}
    running: dict[Point, None] = {}
    given_up: set[Point] = set()
    begun: set[Point] = set()
    while True:
        state = search_state(asked, outcomes, running, given_up, max_steps=STEPS, wanted=workers)
        if state.answered:
            return state
        for point in state.next[: workers - len(running)]:
            assert point not in begun
            begun.add(point)
            running[point] = None
        assert running, "not answered, and nothing to run"
        ended = (luck or random.Random(0)).choice(sorted(running))
        del running[ended]
        value = asked.values[ended.rung]
        if value in crashes:
            given_up.add(ended)
        else:
            outcomes[ended] = its.run(value, ended.seed)


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
