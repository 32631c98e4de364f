"""What a run or a search would need, without training."""

from redline.training.plan.text import plan_text

__all__ = ["plan_text"]
