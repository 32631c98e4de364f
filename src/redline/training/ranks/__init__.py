"""One run on several devices, and on several machines: the processes that train it."""

from redline.training.ranks.launcher import launch

__all__ = ["launch"]
