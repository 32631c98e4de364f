"""A search, read back from its stores: plain data, figures, and one HTML page."""

from redline.report.load import load_search
from redline.report.page import write_report
from redline.report.search import Run, Search, Variant
from redline.report.topics.attention_logit import max_attention_logit
from redline.report.topics.loss_against_lr import loss_against_lr
from redline.report.topics.lr_sensitivity import lr_sensitivity_bars
from redline.report.topics.output_norms import norm_curves, norm_heatmap

__all__ = [
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
