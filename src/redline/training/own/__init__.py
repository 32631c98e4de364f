"""A LightningModule of the user's own as something that is searched."""

from redline.training.own.task import OwnModule

__all__ = ["OwnModule"]
