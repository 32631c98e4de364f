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
from subject import Subject

from postgresql_server import PostgreSQL


@dataclass(frozen=True)
class Search:
    """What is struck: the command, on what, and how hard."""

    name: str
    command: Sequence[str]
    most: int  # faults that one search is struck by
    pause: tuple[float, float]  # the least and the most seconds between two
    gated: bool = False  # its trials wait at a gate: it cannot end before the last fault
    checkpoints: bool = False  # its trials write some
    ranks: bool = False  # each of its trials is several processes
    megabytes: int | None = None  # of a disk of its own, where it has one
    server: PostgreSQL | None = None  # in place of an SQLite storage
    only: str | None = None  # the one kind of fault that strikes it

    def faults(self) -> list[str]:
        """The kinds that can strike it, each once."""
        if self.only is not None:
            return [self.only] * self.most
        possible = {
            "disk_full": self.megabytes is not None,
            "checkpoint_damaged": self.checkpoints,
            "rank_killed": self.ranks,
            "launcher_killed": self.ranks,
            "rank_hangs": self.ranks,
            "sender_killed": self.checkpoints,  # they are tracked too
            "storage_restarted": self.server is not None,
            "storage_locked": self.server is None,
            "interrupted_while_storage_is_locked": self.server is None,
        }
        return [fault for fault in FAULTS if possible.get(fault, True)]


@dataclass
class Rounds:
    """``folder`` keeps what every round left behind; a round's number and the seed decide its faults."""

    folder: Path
    seed: int
    _undisturbed: dict[str, Subject] = field(default_factory=dict)
    _queues: dict[tuple[str, str | None], deque[str]] = field(default_factory=dict)

    def play(self, number: int, search: Search, most: int | None = None) -> tuple[list[Struck], list[str]]:
        """What struck the search, and what was wrong with it."""
        if search.name not in self._undisturbed:
            with self._subject(f"undisturbed-{search.name}", search, None) as subject:
                _, wrong = disturb(subject, deque(), Random(0), search.pause, 0)
                if wrong:
                    return [], [f"undisturbed: {problem}" for problem in wrong]
            self._undisturbed[search.name] = subject
        draw = Random(f"{self.seed}-{number}")
        most = min(search.most, most or search.most)
        queue = self._queues.setdefault((search.name, search.only), deque())
        if len(queue) < most:  # what the last round left over comes first: every kind gets its turn
            faults = search.faults()
            queue.extend(draw.sample(faults, len(faults)))
        with self._subject(f"{number}-{search.name}", search, search.megabytes) as subject:
            struck, wrong = disturb(subject, queue, draw, search.pause, most, search.gated)
            subject.history.write_text("".join(f"{its}\n" for its in struck))
            wrong += problems(subject, self._undisturbed[search.name])
            if wrong and subject.disk is not None:
                shutil.copytree(subject.disk, subject.notes / "disk")
            return struck, wrong

    @contextmanager
    def _subject(self, name: str, search: Search, megabytes: int | None) -> Iterator[Subject]:
        notes = self.folder / name
        notes.mkdir()
        database = search.server.new_database() if search.server else None
        subject = Subject(search.command, notes / "cwd", notes, search.server, database)
        subject.folder.mkdir()
        store = subject.folder / "mlruns"
        with nullcontext() if megabytes is None else small_disk(store, megabytes) as subject.disk:
            try:
                yield subject
            finally:
                subject.end()
