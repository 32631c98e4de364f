"""How large a run's attention logits became."""

import math

import numpy as np

from redline.report.search import Run

METRIC = "attention/max_logit"


def largest_logit(run: Run) -> float | None:
    """The maximum of `attention/max_logit` over the run's readings; infinite where one was no finite number.

    None where it was not logged.
    """
    curve = run.history(METRIC)
    if not len(curve.values):
        return None
    return float(np.max(curve.values)) if curve.is_finite.all() else math.inf
