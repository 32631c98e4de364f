"""Whether a value is what its annotation allows: its type, and the bounds that stand beside it.

``width: Annotated[int, Ge(1)]`` says both at once; OmegaConf reads the type alone. Numbers must be finite.
"""

import json
from collections.abc import Sequence
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt

from redline.errors import UserError
from redline.secrets import without_password

Positive = Annotated[float, Gt(0), Le(10**9)]
Share = Annotated[float, Ge(0), Le(1)]
Epsilon = Annotated[float, Gt(0), Le(1)]
Kept = Annotated[float, Ge(0), Lt(1)]  # the share of a running mean that a step keeps
Count = Annotated[int, Ge(1), Le(10**9)]  # of steps, sequences, …
Steps = Annotated[int, Ge(0), Le(10**9)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]

_NOUNS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_LONGEST_SHOWN = 60  # characters of a value


def check_value(key: str, value: Any, annotation: Any) -> None:
    """Raise UserError where ``value``, as YAML or JSON gives it, is not what ``annotation`` allows."""
    # It takes a tenth of a second to import, which `--help` can do without.
    from pydantic import ValidationError

    # As JSON, in which a list may stand for a tuple and a text for an enum, and nothing else is converted.
    try:
        _validator(annotation).validate_json(json.dumps(value, default=_no_plain_value), strict=True)
    except ValidationError:
        raise UserError(f"{key}={shown(value)}: allowed: {allowed(annotation)}") from None


def _no_plain_value(value: Any) -> dict[str, Any]:
    return {}  # which no number, text or list is


@cache
def _validator(annotation: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True))


def shown(value: Any) -> str:
    """A value as the command line would have it, in one short line and without a password."""
    text = without_password(" ".join(_text(value).split()))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return f"[{', '.join(map(_text, value))}]" if isinstance(value, list | tuple) else str(value)


def allowed(annotation: Any) -> str:
    """The annotation in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kind, *bounds = arguments
        return allowed(kind).replace("a list", f"a list{_length(bounds)}", 1) + _range(bounds)
    if origin in (Union, UnionType):
        words = [allowed(its) for its in arguments if its is not NoneType]
        return " or ".join(words) + (", or null" if NoneType in arguments else "")
    if origin is Literal:
        return ", ".join(map(shown, arguments))
    if origin is tuple and Ellipsis not in arguments:
        return f"[{', '.join(map(allowed, arguments))}]"
    if origin in (list, tuple, Sequence):
        return f"a list, each {allowed(arguments[0])}"
    if origin is dict:
        return "names and their values"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(str(its.value) for its in annotation)
    return _NOUNS.get(annotation, "null" if annotation is NoneType else "anything")


def _range(bounds: Sequence[Any]) -> str:
    """Such as ``from 0 to below 1``."""
    low = next((its for its in bounds if isinstance(its, Ge | Gt)), None)
    high = next((its for its in bounds if isinstance(its, Le | Lt)), None)
    upper = "" if high is None else str(high.le) if isinstance(high, Le) else f"below {high.lt}"
    if isinstance(low, Ge):
        return f" from {low.ge} to {upper}" if upper else f" of {low.ge} or more"
    if isinstance(low, Gt):
        return f" above {low.gt}" + (f", up to {upper}" if upper else "")
    return f" of at most {upper}" if upper else ""


def _length(bounds: Sequence[Any]) -> str:
    """Such as `` of 1 to 3``."""
    length = next((its for its in bounds if isinstance(its, Len)), None)
    if length is None:
        return ""
    least, most = length.min_length, length.max_length
    return f" of {least} or more" if most is None else f" of {least} to {most}"
