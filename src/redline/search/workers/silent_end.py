"""The first import of the server that tasks are forked from: the server then exits without teardown.

Ctrl-C during its imports would print a traceback, so the server ignores it from its start on. A process that
ends waits for its server, and the teardown of an interpreter that has torch imported takes seconds.
"""

import atexit
import os
import signal

atexit.register(os._exit, 0)  # the first to be registered is the last to be called
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
