"""The exceptions whose text is meant for the user: one line, printed as ``error: …``."""


class UserError(ValueError):
    """A mistake in what the user asked for; the command exits with status 2.

    The message is one line that names the key, its value, and what is allowed.
    """


class OutageError(RuntimeError):
    """Something that the command needs did not answer in time; the command exits with status 1."""


class UnfinishedSearchError(RuntimeError):
    """The jobs of a search have ended and it has no answer yet; the command exits with status 1."""
