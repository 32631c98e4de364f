"""What is logged for MLflow waits on disk until MLflow has it.

A run only appends to files of its own. A sender, one process for all runs of a store, gives what it finds
there to MLflow, as often as it takes, and ends by itself. So a store that is slow or gone neither slows nor
ends training, and what was logged arrives later, whichever process is killed.
"""

from redline.training.outbox.folder import Outbox, run_page
from redline.training.outbox.process import drain, finish, start_sender

__all__ = ["Outbox", "drain", "finish", "run_page", "start_sender"]
