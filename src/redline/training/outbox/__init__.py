"""What is to reach MLflow waits on disk until it is there."""

from redline.training.outbox.spool import Outbox, Spool

__all__ = ["Outbox", "Spool"]
