"""Let faults strike a search at random moments, then leave it alone until it ends."""

import time
from collections import deque
from dataclasses import dataclass
from random import Random

from kinds import FAULTS
from subject import Subject

_PATIENCE = 600.0  # seconds that an undisturbed search has to end, and that a fault has to find something


@dataclass(frozen=True)
class Struck:
    fault: str
    at: float  # seconds since the start
    what: str

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.fault}: {self.what}"


def disturb(
    subject: Subject,
    faults: deque[str],
    draw: Random,
    pause: tuple[float, float],
    most: int,
    gated: bool = False,
) -> tuple[list[Struck], list[str]]:
    """Run the search, striking it with at most ``most`` of ``faults``, which are taken from there.

    ``pause``: the least and the most seconds between two. A fault that finds nothing to strike goes to the
    end of the queue; a search that has its answer is struck no more. One that is ``gated`` has none before
    all have struck: one trial may end for each, and every other fault waits for that. Gives what struck, and
    what was wrong with how the processes ended.
    """
    struck: list[Struck] = []
    began = time.monotonic()
    deadline = began + _PATIENCE
    subject.start()
    while faults and len(struck) < most and time.monotonic() < deadline:
        if gated:
            subject.gate.let(len(struck) + 1)
            if draw.random() < 0.5:
                _until_held(subject, deadline)
        time.sleep(draw.uniform(*pause))
        if subject.answered:
            break
        at = time.monotonic() - began
        fault = faults.popleft()
        what = FAULTS[fault](subject, draw)
        if what is None:
            faults.append(fault)
        else:
            struck.append(Struck(fault, at, what))
            deadline = time.monotonic() + _PATIENCE
        if not subject.alive() and not subject.answered:
            subject.start()
    subject.gate.open()
    unfinished = subject.finish(_PATIENCE)
    complaints = [coordinator.complaint() for coordinator in subject.started if not coordinator.alive]
    return struck, [problem for problem in (unfinished, *complaints) if problem]


def _until_held(subject: Subject, deadline: float) -> None:
    while not subject.gate.holds and subject.alive() and time.monotonic() < deadline:
        time.sleep(0.05)
