"""What a search is asked, and what is to be done at its end. Imports nothing slow, for dry runs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from redline.bounds import shown
from redline.errors import UserError
from redline.search.options import Options
from redline.search.variant import Variant, with_short_runs

_LONGEST_NAME = 100  # characters


@dataclass(frozen=True)
class Search:
    """What a search asks, and where it is kept.

    ``home``: the folder that relative stores are in. ``place``: the search's name -> its own folder, made
    where there is none. ``name`` None: that of an unfinished search that asks the same, or made of the
    variants and the time. ``prefix``: in messages, what comes before an option's name; ``name_key``: what
    the user calls the search's.
    """

    options: Options
    variants: Sequence[Variant]
    ladder: tuple[float, ...]
    home: Path
    place: Callable[[str], Path]
    name: str | None = None
    label: str = "LR"
    accelerator: str = "auto"
    prefix: str = ""
    name_key: str = "name"

    @property
    def names(self) -> list[str]:
        return [variant.name for variant in self.variants]

    def goes_on(self, name: str) -> str:
        """What the user does to take up the search of this ``name`` again."""
        again = (
            "the same command" if self.name is not None else f"the same command, or {self.name_key}={name},"
        )
        return f"{again} goes on"

    def check(self) -> None:
        """Raise UserError for what can be found wrong in this process."""
        self.options.check(self.prefix)
        if self.name is not None:
            check_name(self.name_key, self.name)
        if self.options.short_run_steps is not None:
            for variant in self.variants:
                with_short_runs(variant, self.options.short_run_steps)


def check_name(key: str, name: object) -> None:
    """Raise UserError for a name that is not one of a folder inside another."""
    if not (isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name == name.strip()):
        raise UserError(f"{key}={shown(name)}: allowed: a name of 1 to {_LONGEST_NAME} characters")
    if name.startswith((".", "~")) or not name.isprintable() or {*"/\\"} & {*name}:
        raise UserError(f"{key}={shown(name)}: allowed: a name without / and \\, and with no . or ~ in front")


@dataclass(frozen=True)
class EndedSearch:
    """What an `AtEnd` gets."""

    name: str
    directory: Path
    storage: str  # the studies' URL
    reference: str


class AtEnd(ABC):
    """Something to do once a search has its answer, in a child process; a failure is only printed."""

    name: ClassVar[str]  # in messages, and of its log
    command: ClassVar[str]  # that does it too; `{search}` is the search's name
    timeout: float | None  # seconds

    @abstractmethod
    def __call__(self, search: EndedSearch) -> Sequence[str]:
        """Gives lines for the user."""
