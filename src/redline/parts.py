"""What a `_target_` of the configuration names: found, checked, and made.

A group is for one kind of part: a schedule is a schedule. The arguments and their bounds are those of the
part's own signature, so a part that a user writes is checked like ours.
"""

import inspect
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from redline.bounds import check_value, shown
from redline.errors import UserError, did_you_mean

_OURS_OR_INSTALLED = (Path(__file__).parent, *map(Path, {*sysconfig.get_paths().values()}))
_OWN_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_")


@dataclass(frozen=True)
class Kind:
    """What a group of the configuration is for, and the arguments that the program adds: so many positional
    ones, and those named. ``nested``: whether an argument may be a part itself.
    """

    words: str
    fits: Callable[[Any], bool]
    positional: int = 0
    named: tuple[str, ...] = ()
    nested: bool = False


def subclass_of(*bases: type) -> Callable[[Any], bool]:
    return lambda target: isinstance(target, type) and issubclass(target, bases)


def returns(*bases: type) -> Callable[[Any], bool]:
    """Fits these classes, and functions that say they give one."""
    return lambda target: subclass_of(*bases)(target) or subclass_of(*bases)(_hints(target).get("return"))


def has_parameters(*names: str) -> Callable[[Any], bool]:
    return lambda target: {*names} <= {*_parameters(target)}


def find_part(key: str, spec: Any, kind: Kind) -> partial[Any]:
    """What makes the part from the program's arguments. Raises UserError for what is not of this kind, and
    for an argument that is unknown, missing or out of bounds.
    """
    plain: Any = OmegaConf.to_container(spec, resolve=True) if OmegaConf.is_config(spec) else spec
    target = find_target(key, plain, kind)
    arguments = {str(name): value for name, value in plain.items() if name not in _OWN_KEYS}
    parameters = _parameters(target)
    own = {name: its for name, its in [*parameters.items()][kind.positional :] if name not in kind.named}
    _check_arguments(key, target, arguments, own, kind.nested)
    return partial(_make_nested if _holds_part(arguments) else _make, key, target, arguments)


def find_target(key: str, spec: Any, kind: Kind) -> Any:
    """The class or function that the plain ``spec`` names. Raises UserError for what is not of this kind."""
    if not isinstance(spec, Mapping) or not isinstance(spec.get("_target_"), str):
        raise UserError(f"{key}={shown(spec)}: allowed: {kind.words} as _target_, and its arguments")
    target = _find(f"{key}._target_", spec["_target_"], kind)
    if not kind.fits(target) or len(_parameters(target)) < kind.positional:
        raise UserError(f"{key}._target_={spec['_target_']}: allowed: {kind.words}")
    return target


def _find(key: str, name: str, kind: Kind) -> Any:
    # Not Hydra's get_method: it does not look at the list of what is never called from a configuration.
    try:
        return instantiate({"_target_": name, "_partial_": True}).func
    except InstantiationException as error:
        raise UserError(f"{key}={name}: {told(error)}; allowed: {kind.words}") from error


def _check_arguments(
    key: str,
    target: Any,
    arguments: Mapping[str, Any],
    own: Mapping[str, inspect.Parameter],
    nested: bool,
) -> None:
    """``own``: the parameters that the configuration fills."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {name: its for name, its in own.items() if its.kind not in several}
    for name in arguments:
        if name not in named and len(named) == len(own):
            hint = did_you_mean(name, named)
            raise UserError(f"{key}.{name}: unknown argument{hint}; allowed: {', '.join(named) or 'none'}")
    for name, parameter in named.items():
        if name not in arguments and parameter.default is inspect.Parameter.empty:
            raise UserError(f"{key}.{name}: not set; {target.__name__} needs it")
    hints = _hints(target)
    for name, value in arguments.items():
        if not _holds_part(value):
            check_value(f"{key}.{name}", value, hints.get(name, Any))
        elif not nested:
            raise UserError(f"{key}.{name}: allowed: plain values, no _target_")


def _holds_part(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_holds_part, value.values()))
    return isinstance(value, list) and any(map(_holds_part, value))


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):  # one written in C says nothing of its arguments
        return {}


def _hints(target: Any) -> dict[str, Any]:
    function = getattr(target, "__init__") if isinstance(target, type) else target  # noqa: B009  # mypy
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):  # a user's own, which need not make sense
        return {}


def _make_nested(key: str, target: Any, arguments: Mapping[str, Any], *given: Any, **more: Any) -> Any:
    """With the parts among the arguments made, too."""
    try:
        made = instantiate(arguments, _convert_="all")
    # Whatever a part of the user's own raises.
    except Exception as error:
        raise UserError(f"{key}: {told(error)}") from error
    return _make(key, target, made, *given, **more)


def _make(key: str, target: Any, arguments: Mapping[str, Any], *given: Any, **more: Any) -> Any:
    try:
        return target(*given, **arguments, **more)
    except UserError:
        raise
    # Whatever a part of the user's own raises.
    except Exception as error:
        raise UserError(f"{key}: {told(error)}") from error


def told(error: Exception) -> str:
    """The first cause in one line; with file and line where that is in code neither ours nor installed."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and not any(Path(frame.filename).is_relative_to(folder) for folder in _OURS_OR_INSTALLED)
    ]
    return f"{own[-1].filename}:{own[-1].lineno}: {type(error).__name__}: {text}" if own else text
