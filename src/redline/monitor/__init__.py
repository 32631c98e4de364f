"""Taps on a model under training, and the callback that reads them."""

from redline.monitor.callback import Monitor
from redline.monitor.output_norm import OutputNorm
from redline.monitor.tap import Tap

__all__ = ["Monitor", "OutputNorm", "Tap"]
