"""Loss against LR."""

from functools import partial

from redline.report.blocks import Picture, Section, Text
from redline.report.figures import loss_against_lr
from redline.report.search import Search

ORDER = 20

_READING = (
    "One marker a run, so several at one LR are seeds; the line joins their means, each loss capped at that "
    "of the untrained model. A flat curve means that the LR hardly matters; a rising right end is where "
    "pushing harder destroys what a gentler run learns. Crosses are diverged runs, with the rule that broke "
    "beside the first. Runs in the grey band at the top have no validation loss, as they were ended early "
    "(hollow), or one above that of the untrained model. The small ticks are the ladder's rungs; a bisection "
    "runs few of them. Other variants are grey in every panel."
)


def section(search: Search, reference: str) -> Section:
    title = "Validation loss against learning rate"
    if not any(run.finished for run in search.runs):
        return Section("loss_against_lr", title, _READING, [Text("No run has ended yet.")])
    alt = "Validation loss against learning rate, a panel for each variant"
    picture = Picture("loss_against_lr", alt, partial(loss_against_lr, search))
    return Section("loss_against_lr", title, _READING, [picture])
