"""One search after the other, each struck by its share of the faults and held against an undisturbed one."""

import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from check import problems
from driver import Struck, disturb
from kinds import FAULTS
from small_disk import small_disk
from subject import Subject, quick, real


@dataclass(frozen=True)
class Search:
    """What is struck: the command, and how hard."""

    name: str
    command: Sequence[str]
    faults: Sequence[str]
    most: int  # faults that one search is struck by
    pause: tuple[float, float]  # the least and the most seconds between two
    megabytes: int | None = None  # of a disk of its own, where it has one


def quick_search(faults: Sequence[str], most: int, small: bool) -> Search:
    return Search("quick", quick(seconds=0.3), faults, most, (0.3, 2.5), 8 if small else None)


def real_search(cache_dir: Path, faults: Sequence[str], most: int, small: bool) -> Search:
    return Search("real", real(cache_dir), faults, most, (0.5, 8.0), 24 if small else None)


def possible_faults(search: str, small: bool) -> list[str]:
    """``small``: whether the search has a small disk."""
    never = {"checkpoint_damaged"} if search == "quick" else set()
    return [name for name in FAULTS if name not in never and (small or name != "disk_full")]


@dataclass
class Rounds:
    """``folder`` keeps what every round left behind; a round's number and the seed decide its faults."""

    folder: Path
    seed: int
    _undisturbed: dict[str, Subject] = field(default_factory=dict)
    _queues: dict[str, deque[str]] = field(default_factory=dict)

    def play(self, number: int, search: Search) -> tuple[list[Struck], list[str]]:
        """What struck the search, and what was wrong with it."""
        if search.name not in self._undisturbed:
            with self._subject(f"{search.name}-undisturbed", search, None) as subject:
                _, wrong = disturb(subject, deque(), Random(0), search.pause, 0)
                if wrong:
                    return [], [f"undisturbed: {problem}" for problem in wrong]
            self._undisturbed[search.name] = subject
        draw = Random(f"{self.seed}-{number}")
        queue = self._queues.setdefault(search.name, deque())
        if len(queue) < search.most:  # what the last round left over comes first: all kinds get their turn
            queue.extend(draw.sample(search.faults, len(search.faults)))
        with self._subject(f"{number}-{search.name}", search, search.megabytes) as subject:
            struck, wrong = disturb(subject, queue, draw, search.pause, search.most)
            subject.history.write_text("".join(f"{its}\n" for its in struck))
            wrong += problems(subject, self._undisturbed[search.name])
            if wrong and subject.disk is not None:
                shutil.copytree(subject.disk, subject.notes / "disk")
            return struck, wrong

    @contextmanager
    def _subject(self, name: str, search: Search, megabytes: int | None) -> Iterator[Subject]:
        notes = self.folder / name
        notes.mkdir()
        subject = Subject(search.command, notes / "cwd", notes)
        subject.folder.mkdir()
        store = subject.folder / "mlruns"
        with nullcontext() if megabytes is None else small_disk(store, megabytes) as subject.disk:
            try:
                yield subject
            finally:
                subject.end()
