"""Passwords on their way to a job: a launcher writes a job's words and settings to disk."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from redline.secrets import without_password, without_passwords

_NAME = "REDLINE_JOB_{}"  # of an environment variable, which jobs inherit


def take_out_passwords(words: Sequence[str]) -> list[str]:
    """A command's words; those with a password refer to an environment variable, which is set here."""
    return [_referring(number, word) for number, word in enumerate(words)]


def _referring(number: int, word: str) -> str:
    if without_password(word) == word:
        return word
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:  # an option
        return word
    value = override.value()
    if override.is_sweep_override() or isinstance(value, dict | list):
        return word
    os.environ[_NAME.format(number)] = str(getattr(value, "text", value))
    return f"{word.partition('=')[0]}=${{oc.env:{_NAME.format(number)}}}"


def masked(config: DictConfig) -> DictConfig:
    """A copy of Hydra's configuration without passwords."""
    copy = config.copy()
    plain = OmegaConf.to_container(config)
    with read_write(copy), open_dict(copy):
        for path, value in _changes(plain, without_passwords(plain), ""):
            OmegaConf.update(copy, path, value)
    return copy


def _changes(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(before, dict):
        for key in before:
            yield from _changes(before[key], after[key], f"{path}.{key}" if path else str(key))
    elif isinstance(before, list):
        for index, its in enumerate(before):
            yield from _changes(its, after[index], f"{path}[{index}]")
    elif before != after:
        yield path, after
