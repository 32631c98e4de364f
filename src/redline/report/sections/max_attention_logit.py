"""The largest attention logit against LR."""

from functools import partial

from redline.report.blocks import Block, Picture, Section, Source, Text
from redline.report.figures import max_attention_logit
from redline.report.literature import literature
from redline.report.logits import METRIC, largest_logit
from redline.report.search import Search

ORDER = 70


def section(search: Search, reference: str) -> Section:
    paper = literature().wortsman
    reading = (
        "The largest attention logit, q·k/√K before any cap, over all layers, heads and readings of a run. "
        f"In Wortsman et al. every run that passed {paper.logit_diverges:g} diverged, and the loss was "
        f"already hurt near {paper.logit_hurts:g}. A variant that diverges far below breaks elsewhere."
    )
    block: Block = Text(f"None of the runs logged {METRIC}: {search.curves.trouble or 'the tap was off'}.")
    if any(largest_logit(run) is not None for run in search.runs if run.finished):
        alt = "Largest attention logit against learning rate, a panel for each variant"
        block = Picture("max_attention_logit", alt, partial(max_attention_logit, search))
    source = Source(paper.source, paper.url)
    return Section("max_attention_logit", "Largest attention logit", reading, [block, source])
