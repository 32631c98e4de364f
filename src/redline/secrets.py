"""Hides passwords in whatever is shown or written."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_WORDS = (
    r"(?:\w*(?:password|passwd|passphrase|pwd|secret|credentials?|api_?key|access_?key|private_?key)"
    r"|(?:\w*_)?(?:token|pass))"
)
_SECRET_KEY = re.compile(_WORDS, re.IGNORECASE)
# As in a URL's query, in libpq's words, in an environment, or in a mapping: password=x, PGPASSWORD='x y'.
_NAMED = re.compile(
    rf"((?:\b{_WORDS}|(?<=[?&])\w*key)\s*(?:[=:]|%3D)\s*)('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s&]+)",
    re.IGNORECASE,
)
# What stands before the last @ of a URL, for a password may hold an unescaped one. A file's path has no user.
_USER_INFO = re.compile(r"(?<=://)(?:(?P<user>[^\s:/@]+):)?(?!/)\S*@")


def without_password(text: str) -> str:
    """``text`` with every password hidden that a URL, or a word such as ``password=``, holds."""
    return _USER_INFO.sub(_user_alone, _NAMED.sub(rf"\g<1>{HIDDEN}", text))


def without_passwords(value: Any, key: str = "") -> Any:
    """The same for plain values within one another; ``key``: what the value stands under."""
    if isinstance(value, Mapping):
        return {name: without_passwords(its, str(name)) for name, its in value.items()}
    if isinstance(value, list):
        return [without_passwords(its, key) for its in value]
    if value is not None and _SECRET_KEY.fullmatch(key):
        return HIDDEN
    return without_password(value) if isinstance(value, str) else value


def _user_alone(found: re.Match[str]) -> str:
    return f"{found['user']}:{HIDDEN}@" if found["user"] else f"{HIDDEN}@"
