"""The one kind of exception whose text is meant for the user."""


class UserError(ValueError):
    """A mistake in what the user asked for.

    The message is one line that names the key, its value, and what is allowed.
    The command line prints it as ``error: …`` and exits with status 2.
    """
