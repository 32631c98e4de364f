"""What is logged for MLflow waits on disk until MLflow has it.

A run only appends to files of its own. A sender, one process for all runs of an outbox, gives what it finds
there to MLflow, as often as it takes, and ends by itself. So a store that is slow or gone neither slows nor
ends training, and what was logged arrives later, whichever process is killed.
"""

from redline.training.outbox.drain import Left, drain, finish, waiting_text
from redline.training.outbox.folder import Outbox, RunWriter, without_password
from redline.training.outbox.process import start_sender

__all__ = [
    "Left",
    "Outbox",
    "RunWriter",
    "drain",
    "finish",
    "start_sender",
    "waiting_text",
    "without_password",
]
