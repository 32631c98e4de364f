"""From the words of a command line to the ladder and the variants."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from redline.errors import UserError
from redline.search.policy import ladder


def split(
    arguments: Sequence[str],
    params: Mapping[str, str],
    config_loader: Any,
    key: str,
    default_ladder: Sequence[float],
    tolerance: float,
) -> tuple[list[float], list[list[str]], list[str]]:
    """The ladder; for every variant the overrides that make it; what has several values beside `norm`.

    What ``key`` is given is the ladder: a list, a range or an interval; without it the default one, for `lr`.
    Every other override with several values multiplies the variants. ``params``: overrides that a file has,
    for keys that the command line does not give. Raises UserError.
    """
    parser = OverridesParser.create(config_loader=config_loader)
    rungs = ladder.from_values(default_ladder, key) if key == "lr" else None
    choices: list[list[str]] = []
    varied = []
    given = parser.parse_overrides(list(arguments))
    keys = {override.key_or_group for override in given}
    kept = [f"{name}={values}" for name, values in params.items() if name not in keys]
    for override in [*parser.parse_overrides(kept), *given]:
        if override.key_or_group == key:
            rungs = _ladder(override, key, tolerance)
        elif override.is_sweep_override():
            if override.is_interval_sweep():
                raise UserError(
                    f"{override.input_line}: an interval is for {key}; allowed here: a list or a range"
                )
            name = override.get_key_element()
            values = list(dict.fromkeys(override.sweep_string_iterator()))
            if not values:
                raise UserError(f"{override.input_line}: gives no value; allowed: one or more")
            choices.append([f"{name}={value}" for value in values])
            if override.key_or_group != "norm":
                varied.append(override.key_or_group)
        else:
            assert override.input_line is not None
            choices.append([override.input_line])
    if rungs is None:
        raise UserError(f"{key}: has no ladder; allowed with hydra.sweeper.key={key}: {key}=VALUE,VALUE,…")
    return rungs, [list(chosen) for chosen in itertools.product(*choices)], varied


def _ladder(override: Override, key: str, tolerance: float) -> list[float]:
    value = override.value()
    if isinstance(value, RangeSweep):
        assert value.start is not None
        assert value.stop is not None
        return ladder.from_range(value.start, value.stop, value.step, key)
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        return ladder.from_interval(value.start, value.end, tolerance, key)
    if isinstance(value, ChoiceSweep):
        return ladder.from_values((str(item) for item in override.sweep_string_iterator()), key)
    if isinstance(value, list):
        return ladder.from_values(value, key)
    raise UserError(f"{key}={value}: one value is no ladder; allowed with -m: a list, a range or an interval")
