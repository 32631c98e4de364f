"""Ctrl-C, or a cluster's SIGTERM, noticed between two storage operations and not within one."""

import signal
from types import FrameType, TracebackType
from typing import Self


class Interrupt:
    """While entered, a first signal is only noted; ``check`` raises for it. A second one raises at once."""

    def __init__(self) -> None:
        self.noted = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self.noted:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
