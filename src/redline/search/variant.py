"""One variant of a search: a trainable under a name, and the rules that judge its runs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from redline.search.trainable import Trainable
from redline.stability import EndRule, build_rules, rules_of_length

_SHORT = " (short runs)"


@dataclass(frozen=True)
class Variant:
    """``rules``: the divergence rules by name, as `stability.build_rules` reads them. The seeds are
    ``first_seed`` and those after it.
    """

    name: str
    trainable: Trainable
    rules: Mapping[str, Any]
    first_seed: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)  # of its trials, for a tracker
    short_runs: str | None = None  # the variant whose short runs look first
    is_short: bool = False


def with_short_runs(variant: Variant, steps: int) -> tuple[Variant, Variant]:
    """A variant that waits for short runs, and the variant of those: the same, with ``steps`` steps.

    A short run has no time to learn, so the rules of a run's end do not judge it. Raises UserError.
    """
    at_end = build_rules(variant.rules, EndRule)
    short = replace(
        variant,
        name=f"{variant.name}{_SHORT}",
        trainable=variant.trainable.shortened(steps),
        rules=rules_of_length(
            {name: spec for name, spec in variant.rules.items() if name not in at_end}, steps
        ),
        is_short=True,
    )
    return replace(variant, short_runs=short.name), short


def fingerprint(
    settings: Mapping[str, Mapping[str, Any]], ladder: Sequence[float], rest: Mapping[str, Any]
) -> str:
    """The same for two commands that ask the same question. ``settings``: of each variant's trainable."""
    asked = {"variants": settings, "ladder": list(ladder), **rest}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
