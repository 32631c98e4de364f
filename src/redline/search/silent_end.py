"""The first import of the server that jobs are forked from: Ctrl-C amid its imports ends it without a word.

Python would print a traceback. Once it serves, the server ignores Ctrl-C by itself.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
