"""The first import of the server that jobs are forked from: Ctrl-C amid its imports ends it without a word.

Python would print a traceback. Until here the server was deaf to it, and once it serves, it ignores it.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
