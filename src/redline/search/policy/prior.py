"""What is assumed of a curve before its first run; conf/hydra/sweeper/max_lr.yaml has the numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

from annotated_types import Len

from redline.bounds import Positive, check_value
from redline.errors import UserError

# A median, and the standard deviation of the logarithm.
Pair = Annotated[tuple[Positive, Positive], Len(2, 2)]


@dataclass(frozen=True)
class Prior:
    """Widths are along the axis, in log LR; heights are lost shares."""

    seed_shift: Pair
    run_shift: Pair
    seed_break: Pair
    rise_width: Pair
    rise_skew: Pair
    fall_slope: Pair
    bend_height: Pair
    bend_length: Pair
    noise: Pair
    seed_offset: Pair
    best_height: Positive
    beyond: Positive
    hint_spread: Positive


def read_prior(told: Any, key: str) -> Prior:
    """Raises UserError for a number that is missing, unknown or out of range."""
    names = [field.name for field in fields(Prior)]
    if not isinstance(told, Mapping) or {*told} != {*names}:
        wrong = {*told} ^ {*names} if isinstance(told, Mapping) else ()
        raise UserError(f"{key}: {', '.join(sorted(map(str, wrong))) or told}: allowed: {', '.join(names)}")
    hints = get_type_hints(Prior, include_extras=True)
    values = {name: list(its) if isinstance(its, list | tuple) else its for name, its in told.items()}
    for name in names:
        check_value(f"{key}.{name}", values[name], hints[name])
    numbers: dict[str, Any] = {
        name: tuple(its) if isinstance(its, list) else its for name, its in values.items()
    }
    return Prior(**numbers)
