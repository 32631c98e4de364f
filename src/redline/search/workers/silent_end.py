"""The first import of the server that jobs are forked from: it ends without a word, and at once.

Ctrl-C amid its imports would have Python print a traceback. Until here the server was deaf to it, and once it
serves, it ignores it. And whoever ends waits for its server, whose interpreter, torch imported, takes seconds
to take apart.
"""

import atexit
import os
import signal

atexit.register(os._exit, 0)  # the first to be registered is the last to be called
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
