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

_SECTIONS = (
    result.section,
    loss_against_lr.section,
    lr_sensitivity.section,
    output_norms.growth_section,
    output_norms.curves_section,
    output_norms.heatmap_section,
    attention_logit.section,
    perplexity.section,
    cost.section,
    runs.section,
)


def all_sections(search: Search, reference: str) -> list[Section]:
    """In the order of the page, without those that have nothing to say of this search.

    ``reference`` is the variant that ratios are to.
    """
    return [its for section in _SECTIONS if (its := section(search, reference)) is not None]
