"""The monitor that the group `monitor` of a configuration describes."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from redline.bounds import Count, check_value
from redline.errors import UserError
from redline.monitor.callback import Monitor
from redline.monitor.tap import Tap
from redline.parts import Kind, find_part, subclass_of

_TAP = Kind("a subclass of redline.monitor.Tap", subclass_of(Tap))


def build_monitor(spec: DictConfig, kind: type[Monitor] = Monitor) -> Monitor:
    """``spec`` has ``every``, in steps, and ``taps``: name -> `_target_`, its arguments and perhaps its own
    ``every``, or null for none. Raises UserError.
    """
    plain: Any = OmegaConf.to_container(spec, resolve=True)
    for key in plain:
        if key not in ("every", "taps"):
            raise UserError(f"monitor.{key}: unknown key; allowed here: every, taps")
    check_value("monitor.every", plain["every"], Count)
    check_value("monitor.taps", plain["taps"], dict[str, dict[str, Any] | None])
    return kind(build_taps(plain["taps"]), plain["every"])


def build_taps(specs: Mapping[str, Any]) -> dict[str, Tap]:
    """By name. Raises UserError."""
    return {name: _tap(f"monitor.taps.{name}", tap) for name, tap in specs.items() if tap is not None}


def _tap(key: str, spec: dict[str, Any]) -> Tap:
    arguments = dict(spec)
    every = arguments.pop("every", None)
    check_value(f"{key}.every", every, Count | None)
    tap = find_part(key, arguments, _TAP)()
    if every is not None:
        tap.every = every
    return tap
