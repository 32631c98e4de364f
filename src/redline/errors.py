"""The exceptions whose text is meant for the user."""


class UserError(ValueError):
    """A mistake in what the user asked for.

    The message is one line that names the key, its value, and what is allowed.
    The command line prints it as ``error: …`` and exits with status 2.
    """


class UnfinishedSearchError(RuntimeError):
    """Nobody works on a search any more, and it has no answer yet.

    The message is one line; the command line prints it as ``error: …`` and exits with status 1.
    """
