"""The gate's table."""

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table

from redline.gate.compare import Change, Difference
from redline.search.result import SearchResult


def difference_table(differences: Sequence[Difference], new: SearchResult) -> Table:
    numbers = ("loss (nats)", "perplexity") if new.in_nats else ("final score",)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("variant")
    for heading in (f"max useful {new.label}", f"max stable {new.label}", *numbers):
        table.add_column(heading, justify="right")
    for heading in ("useful", "stable", "loss" if new.in_nats else "score"):
        table.add_column(heading)
    for its in differences:
        loss = _arrow(its.loss, ".3f")
        if its.loss.interval is not None:
            low, high = its.loss.interval
            loss += f" ({low:+.3f} to {high:+.3f})"
        cells = [_arrow(its.useful, ".3g"), _arrow(its.stable, ".3g"), loss]
        if new.in_nats:
            perplexity = Change(_exp(its.loss.before), _exp(its.loss.now), its.loss.worse, "")
            cells.append(_arrow(perplexity, ".2f"))
        cells += [_verdict(its.useful), _verdict(its.stable), _verdict(its.loss)]
        table.add_row(its.variant, *cells, style="bold red" if its.worse else None)
    return table


def _arrow(change: Change, form: str) -> str:
    before, now = ("–" if its is None else f"{its:{form}}" for its in (change.before, change.now))
    return f"{before} → {now}"


def _verdict(change: Change) -> str:
    return f"{'WORSE' if change.worse else 'ok'}: {change.why}"


def _exp(loss: float | None) -> float | None:
    return None if loss is None else math.exp(loss)
