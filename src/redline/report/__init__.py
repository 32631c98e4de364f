"""A search, read back from its stores: plain data, figures, and one HTML page."""

from redline.report.figures import (
    loss_against_lr,
    lr_sensitivity_bars,
    max_attention_logit,
    norm_curves,
    norm_heatmap,
)
from redline.report.load import load_search
from redline.report.page import write_report
from redline.report.search import Curve, Run, Search, Variant

__all__ = [
    "Curve",
    "Run",
    "Search",
    "Variant",
    "load_search",
    "loss_against_lr",
    "lr_sensitivity_bars",
    "max_attention_logit",
    "norm_curves",
    "norm_heatmap",
    "write_report",
]
