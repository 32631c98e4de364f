"""The exceptions whose text is meant for the user: one line, printed as ``error: …``."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user asked for; the command exits with status 2.

    The message is one line that names the key, its value, and what is allowed.
    """


class OutageError(RuntimeError):
    """Something that the command needs did not answer in time; the command exits with status 1."""


class UnfinishedSearchError(RuntimeError):
    """The jobs of a search have ended and it has no answer yet; the command exits with status 1."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append, or nothing."""
    near = difflib.get_close_matches(word, [*known], n=1)
    return f" (did you mean {near[0]}?)" if near else ""
