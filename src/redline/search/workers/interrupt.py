"""Ctrl-C, or a cluster's SIGTERM, noticed between two storage operations and not within one."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """While entered, ``handler`` is called for both signals."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, its in before.items():
            signal.signal(number, its or signal.SIG_DFL)


class Interrupt:
    """A first signal is only noted, and ``check`` raises for it. A second one raises at once."""

    noted = False

    def note(self, number: int, frame: FrameType | None) -> None:
        self.check()
        self.noted = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self.noted:
            raise KeyboardInterrupt
