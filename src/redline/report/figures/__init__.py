"""A figure a file: from a search to a matplotlib figure, which nothing but its caller holds."""

from redline.report.figures.loss_against_lr import loss_against_lr
from redline.report.figures.lr_sensitivity import lr_sensitivity_bars
from redline.report.figures.max_attention_logit import max_attention_logit
from redline.report.figures.norm_curves import norm_curves
from redline.report.figures.norm_heatmap import norm_heatmap

__all__ = ["loss_against_lr", "lr_sensitivity_bars", "max_attention_logit", "norm_curves", "norm_heatmap"]
