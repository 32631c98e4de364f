"""What a search shows while it runs: a live panel on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from redline.stability import Progress


@dataclass
class RunView:
    """One running trial, with its last message; ``max_steps`` is None where it is not known."""

    label: str
    max_steps: int | None
    progress: Progress = field(default_factory=lambda: Progress(0, float("nan")))

    @property
    def steps(self) -> str:
        return f"step {self.progress.step}" + (f"/{self.max_steps}" if self.max_steps else "")

    @property
    def state(self) -> str:
        since = self.progress.forecast_step
        return f"loss {self.progress.loss:.3f}" + ("" if since is None else f", warned at step {since}")


class Display:
    """Prints to a console. ``say`` keeps a line for good, ``show`` draws over what it drew before."""

    def __init__(self, console: Console, line_every: float = 10.0) -> None:
        self.console = console
        self.line_every = line_every  # seconds, where the console is no terminal
        self._started = time.monotonic()
        self._printed = self._started
        self._live = (
            Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        stamp = _clock(time.monotonic() - self._started)
        self.console.print(Text(f"[{stamp}] {line}"), soft_wrap=True)

    def show(self, running: Sequence[RunView], finished: int, seconds_left: float | None) -> None:
        """The search at a moment; ``finished`` counts trials of all machines."""
        left = "time left: not known yet" if seconds_left is None else f"about {_clock(seconds_left)} left"
        tail = f"{finished} trials done, {left}"
        if self._live is not None:
            self._live.update(Group(_rows(running), Text(tail)), refresh=True)
            return
        now = time.monotonic()
        if now - self._printed >= self.line_every and running:
            self._printed = now
            self.say(" · ".join([*map(_run_text, running), tail]))


def _rows(running: Sequence[RunView]) -> Table:
    rows = Table.grid(padding=(0, 2))
    for run in running:
        bar = ProgressBar(total=run.max_steps, completed=run.progress.step, width=30)
        rows.add_row(run.label, bar, run.steps, run.state)
    return rows


def _run_text(run: RunView) -> str:
    if run.progress.step == 0:
        return f"{run.label} starting"
    return f"{run.label} {run.steps} {run.state}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
