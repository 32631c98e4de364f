"""The kinds of exception whose text is meant for the user: one line, printed as ``error: …``."""


class UserError(ValueError):
    """A mistake in what the user asked for; the command exits with status 2.

    The message is one line that names the key, its value, and what is allowed.
    """


class OutageError(RuntimeError):
    """Something that the command needs is gone, and waiting has not helped; it exits with status 1."""
