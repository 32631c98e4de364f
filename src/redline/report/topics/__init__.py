"""What a report is about, a module a topic: what it reads of a search, what it draws, and what it says."""

from redline.report.blocks import Section
from redline.report.search import Search
from redline.report.topics import (
    attention_logit,
    cost,
    loss_against_lr,
    lr_sensitivity,
    output_norms,
    perplexity,
    result,
    runs,
)

_TOPICS = (
    result,
    loss_against_lr,
    lr_sensitivity,
    output_norms,
    attention_logit,
    perplexity,
    cost,
    runs,
)


def all_sections(search: Search, reference: str) -> list[Section]:
    """In the order of the page; a topic may have nothing to say of this search.

    ``reference`` is the variant that ratios are to.
    """
    return [section for topic in _TOPICS for section in topic.sections(search, reference)]
