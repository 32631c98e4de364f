"""Taps on a model under training, and the callback that reads them."""

from redline.monitor.activation_histogram import ActivationHistogram
from redline.monitor.attention_entropy import AttentionEntropy
from redline.monitor.callback import Monitor
from redline.monitor.from_config import build_monitor
from redline.monitor.learning_rate import LearningRate
from redline.monitor.linear_norm import LinearNorm
from redline.monitor.max_logit import MaxLogit
from redline.monitor.memory import Memory
from redline.monitor.output_grad_norm import OutputGradNorm
from redline.monitor.output_norm import OutputNorm
from redline.monitor.tap import Step, Tap
from redline.monitor.throughput import Throughput
from redline.monitor.update_ratio import UpdateRatio
from redline.monitor.weight_grad_norm import WeightGradNorm
from redline.monitor.weight_histogram import WeightHistogram
from redline.monitor.weight_norm import WeightNorm

__all__ = [
    "ActivationHistogram",
    "AttentionEntropy",
    "LearningRate",
    "LinearNorm",
    "MaxLogit",
    "Memory",
    "Monitor",
    "OutputGradNorm",
    "OutputNorm",
    "Step",
    "Tap",
    "Throughput",
    "UpdateRatio",
    "WeightGradNorm",
    "WeightHistogram",
    "WeightNorm",
    "build_monitor",
]
