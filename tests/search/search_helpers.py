"""Outcomes made by hand, and a search without processes: workers that finish in any order."""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from redline.search.policy.state import Question, search_state
from redline.search.policy.verdicts import Point, reasons
from redline.search.store.storage import open_storage
from redline.search.store.study import VariantStudy
from redline.search.trainable import Facts
from redline.stability import Cut, Degraded, Outcome, SearchRule

DEGRADED = {"degraded": Degraded(tolerance=0.25)}


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


def monotone(edges: list[int], rungs: int) -> dict[Point, Outcome]:
    """Every point of a grid: seed s diverges from rung ``edges[s]`` on."""
    return {
        Point(rung, seed): outcome(rung + 1.0, seed=seed, reason="blow_up" if rung >= edge else None)
        for seed, edge in enumerate(edges)
        for rung in range(rungs)
    }


@dataclass
class Searched:
    """What a simulated search did."""

    outcomes: dict[Point, Outcome] = field(default_factory=dict)
    given_up: set[Point] = field(default_factory=set)
    asked: list[Point] = field(default_factory=list)
    diverged_by_then: list[set[Point]] = field(default_factory=list)  # after every arrival


def simulate(
    grid: Mapping[Point, Outcome | None],
    *,
    rungs: int,
    seeds: int,
    vote: str,
    workers: int = 1,
    speculative: bool = True,
    choose: Callable[[int], int] = lambda count: 0,
    rules: Mapping[str, SearchRule] = DEGRADED,
    doubt: float = 1.0,
) -> Searched:
    """Run a search whose runs end as ``grid`` says (None: they crash too often), with ``workers`` at once.

    ``choose(count)`` says which of the runs now under way ends next. Asserts that no point is asked for
    twice and that the search never waits for nobody.
    """
    done, running = Searched(), []
    question = Question(tuple(rung + 1.0 for rung in range(rungs)), seeds, vote, doubt)
    while True:
        verdicts = reasons(done.outcomes, rules)
        done.diverged_by_then.append({point for point, reason in verdicts.items() if reason})

        def now(verdicts: Mapping[Point, str | None] = verdicts) -> tuple[Point, ...]:
            seen = search_state(
                question,
                rules,
                done.outcomes,
                dict.fromkeys(running),
                done.given_up,
                speculative=workers * speculative,
            )
            its = seen.plan
            for point in (its.needed, *its.speculative):
                if point is not None:
                    assert not seen.unneeded(point), f"{point} would be cancelled at once"
                    assert 0 <= point.rung < rungs
                    assert 0 <= point.seed < seeds
                    assert point not in verdicts, f"{point} is finished"
                    assert point not in done.given_up, f"{point} is given up"
            for point in its.speculative:
                assert point not in running, f"{point} is running"
            return its.speculative if its.needed is None else (its.needed, *its.speculative)

        while len(running) < workers:
            free = [point for point in now() if point not in running]
            if not free:
                break
            assert free[0] not in done.asked, f"{free[0]} was asked for before"
            done.asked.append(free[0])
            running.append(free[0])
        if not running:
            assert not now(), "runs are needed, and nobody runs them"
            return done
        point = running.pop(choose(len(running)))
        found = grid[point]
        if found is None:
            done.given_up.add(point)
        else:
            done.outcomes[point] = found


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
        "rules": {"degraded": {"_target_": "redline.stability.Degraded", "tolerance": 0.25}},
        "facts": asdict(Facts(max_steps=10)),
        **changed,
    }


def reopened(study: VariantStudy, url: str) -> VariantStudy:
    """The same study as another process sees it."""
    return VariantStudy(open_storage(url, timeout=60.0), study.name, {}, study.first_seed)
