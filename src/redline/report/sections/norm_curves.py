"""Norm curves, a picture a variant."""

from functools import partial

from redline.report.blocks import Block, Picture, Section, Text
from redline.report.figures import norm_curves
from redline.report.names import picture_name
from redline.report.norms import output_norms
from redline.report.search import Search, Variant

ORDER = 50

_READING = (
    "L2 norm of the output of each block's four linear layers over training, a line a layer. Above, the run "
    "at the largest stable LR; below, on the same axes, the one just above the edge, with the step at which "
    "it was judged diverged as a dashed line. Lines that fan out or climb in the lower row only are what "
    "broke. A triangle at the top marks a reading that was infinite or NaN."
)


def section(search: Search, reference: str) -> Section:
    blocks = [_block(search, index, variant) for index, variant in enumerate(search.variants)]
    return Section("norm_curves", "Output norms: stable beside diverged", _READING, blocks)


def _block(search: Search, index: int, variant: Variant) -> Block:
    if not has_norms(variant):
        return Text(f"{variant.name}: no output norms to show. {search.curves.trouble or ''}")
    alt = f"{variant.name}: output norms over steps, of a stable and of a diverged run"
    name = picture_name("norm_curves", index, variant.name)
    return Picture(name, alt, partial(norm_curves, search, variant.name))


def has_norms(variant: Variant) -> bool:
    return any(output_norms(run) for run in variant.pair)
