"""The monitor that the group `monitor` of a configuration describes."""

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from redline.errors import UserError
from redline.monitor.callback import Monitor
from redline.monitor.tap import Tap


def build_monitor(spec: DictConfig) -> Monitor:
    """``spec`` has ``every``, in steps, and ``taps``: name -> `_target_`, its arguments and perhaps its own
    ``every``, or null for none. Raises UserError.
    """
    for key in map(str, spec):
        if key not in ("every", "taps"):
            raise UserError(f"monitor.{key}: unknown key; allowed here: every, taps")
    every = _steps("monitor.every", spec.every)
    taps = {str(name): _tap(str(name), spec.taps[name]) for name in spec.taps if spec.taps[name] is not None}
    return Monitor(taps, every)


def _tap(name: str, spec: DictConfig) -> Tap:
    key = f"monitor.taps.{name}"
    arguments = OmegaConf.to_container(spec, resolve=True) if isinstance(spec, DictConfig) else None
    if not isinstance(arguments, dict) or "_target_" not in arguments:
        raise UserError(f"{key}: allowed: the class of a tap as _target_, and its arguments")
    every = arguments.pop("every", None)
    try:
        tap = instantiate(arguments, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise UserError(f"{key}.{error.__cause__}") from error
        raise UserError(f"{key}: {' '.join(str(error.__cause__ or error).split())}") from error
    if not isinstance(tap, Tap):
        raise UserError(f"{key}._target_={arguments['_target_']}: allowed: a subclass of redline.monitor.Tap")
    if every is not None:
        tap.every = _steps(f"{key}.every", every)
    return tap


def _steps(key: str, value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{key}={value}: allowed: 1 or more steps")
    return value
