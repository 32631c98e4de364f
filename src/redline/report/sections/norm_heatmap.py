"""Heatmaps of the norms, a picture a variant."""

from functools import partial

from redline.report.blocks import Block, Picture, Section, Text
from redline.report.figures import norm_heatmap
from redline.report.names import picture_name
from redline.report.search import Search, Variant
from redline.report.sections.norm_curves import has_norms

ORDER = 60

_READING = (
    "The same norms, layer by step: bright is large, and a column's colours are the same above (stable) and "
    "below (diverged). The dashed line is the step of the divergence; where the rule is judged only at a "
    "run's end, as degraded and no_learning are, that is the last step. Orange cells were infinite or NaN, "
    "grey is after the end."
)


def section(search: Search, reference: str) -> Section:
    blocks = [_block(search, index, variant) for index, variant in enumerate(search.variants)]
    return Section("norm_heatmap", "Which layer, and when", _READING, blocks)


def _block(search: Search, index: int, variant: Variant) -> Block:
    if not has_norms(variant):
        return Text(f"{variant.name}: no output norms to show.")
    alt = f"{variant.name}: output norms as a heatmap, layer by step"
    return Picture(
        picture_name("norm_heatmap", index, variant.name), alt, partial(norm_heatmap, search, variant.name)
    )
