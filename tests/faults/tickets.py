"""Holds a search back, so that it cannot end before it was struck, however fast the machine is."""

from pathlib import Path


class Gate:
    """A trial of the search takes a ticket before it ends, or waits for one: see `fake_trainable.Fake`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._given = 0
        folder.mkdir()

    def let(self, count: int) -> None:
        """As many trials may end, from the search's start on."""
        for number in range(self._given, count):
            (self.folder / f"ticket-{number}").touch()
        self._given = max(self._given, count)

    @property
    def holds(self) -> bool:
        """Whether as many have ended as may."""
        return not any(self.folder.glob("ticket-*"))

    def open(self) -> None:
        """Hold nobody back any more."""
        (self.folder / "open").touch()
