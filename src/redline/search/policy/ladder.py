"""The ladder: the values a search may try, smallest first, keyed by their rounded text.

``key`` is what is searched, for messages.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from redline.errors import UserError

LONGEST = 1000  # rungs
EXTENSION = 6  # rungs that a ladder may grow by on a side
_DIGITS = 6  # significant digits of a rung: 0.060000000000000005 is 0.06


def rounded(lr: float) -> float:
    return float(f"{lr:.{_DIGITS}g}")


def from_values(values: Iterable[float | str], key: str = "lr") -> list[float]:
    """The ladder of given values, in any order. Raises UserError where it is none."""
    rungs: list[float] = []
    for value in values:
        _check_length(len(rungs) + 1, key)
        try:
            lr = rounded(float(value))
        except (TypeError, ValueError):
            raise UserError(f"{key}={value}: not a number; allowed: numbers above 0") from None
        if not (lr > 0 and math.isfinite(lr)):
            raise UserError(f"{key}={value}: allowed: numbers above 0")
        rungs.append(lr)
    ladder = sorted(set(rungs))
    if len(ladder) < 2:
        raise UserError(f"{key}=[{', '.join(map(str, ladder))}]: no ladder; allowed: two or more")
    return ladder


def _check_length(rungs: int, text: str) -> None:
    if rungs > LONGEST:
        raise UserError(f"{text}: gives more than {LONGEST} values; allowed: at most {LONGEST}")


def from_range(start: float, stop: float, step: float, key: str = "lr") -> list[float]:
    """Every ``step`` from ``start`` up to ``stop``, which counts where a step lands on it.

    Decimal arithmetic on the written numbers, so that what one reads is what one gets.
    """
    text = f"{key}=range({start:g},{stop:g},{step:g})"
    try:
        first, last, width = (Decimal(str(number)) for number in (start, stop, step))
    except InvalidOperation:
        raise UserError(f"{text}: allowed: numbers") from None
    if not all(number.is_finite() for number in (first, last, width)):
        raise UserError(f"{text}: allowed: finite numbers")
    if width == 0:
        raise UserError(f"{text}: the step is 0; allowed: any other step")
    count = int((last - first) / width) + 1
    _check_length(count, text)
    values = [float(first + width * index) for index in range(max(0, count))]
    if len(values) < 2:
        raise UserError(f"{text}: gives {len(values)} value; allowed: two or more (the step's default is 1)")
    return from_values(values, key)


def from_interval(low: float, high: float, tolerance: float, key: str = "lr") -> list[float]:
    """Rungs from ``low`` to ``high``, equal in log, each at most ``tolerance`` above the one below."""
    text = f"{key}=interval({low:g},{high:g})"
    if not 0 < low < high < math.inf:
        raise UserError(f"{text}: allowed: 0 < low < high, both finite")
    gaps = max(1, math.ceil(math.log(high / low) / math.log1p(tolerance) - 1e-9))
    _check_length(gaps + 1, f"{text} with hydra.sweeper.tolerance={tolerance:g}")
    return from_values((low * (high / low) ** (gap / gaps) for gap in range(gaps + 1)), key)


def extended(
    ladder: Sequence[float],
    rungs: int = EXTENSION,
    low: float | None = None,
    high: float | None = None,
) -> dict[int, float]:
    """Rung -> value, with at most ``rungs`` more on either side, by the ratio of the ladder's last two there.

    None of them is below ``low`` or above ``high``.
    """
    values = dict(enumerate(ladder))
    down, up = ladder[0] / ladder[1], ladder[-1] / ladder[-2]
    for number in range(1, rungs + 1):
        below, above = rounded(ladder[0] * _power(down, number)), rounded(ladder[-1] * _power(up, number))
        if below >= (low or 0) and below > 0:
            values[-number] = below
        if above <= (high or math.inf) and above < math.inf:
            values[len(ladder) - 1 + number] = above
    return dict(sorted(values.items()))


def _power(ratio: float, number: int) -> float:
    """Infinite where that is too large, which `**` is an error for."""
    return math.prod([ratio] * number)


def rung_of(value: float, values: Mapping[int, float]) -> int:
    """The rung that has this very value, as `extended` gives them."""
    return next(rung for rung, its in values.items() if its == value)
