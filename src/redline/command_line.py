"""How errors are shown: one line for the user's mistakes, a traceback for ours."""

import argparse
import errno
import io
import os
import re
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from redline.errors import OutageError, UnfinishedSearchError, UserError, did_you_mean

_FULL_ERROR = "HYDRA_FULL_ERROR"
TRACEBACK_WANTED = _FULL_ERROR in os.environ
_USERS_MISTAKE = 2
_OTHER = 1
_MORE_CHOICES = {"hydra/launcher": "; more come with pip install 'redline[slurm]' or 'redline[ray]'"}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_BAD_PATH = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}
_BAD_PATH |= {errno.ENAMETOOLONG, errno.ELOOP}
_LARGEST_PORT = 65535


def begin_command() -> None:
    """What every command does first.

    What it writes is for its owner alone. A script's background job, which inherits that it ignores Ctrl-C,
    reacts to it. A reader of its output that goes away, as `head` does, ends nothing.
    """
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("stdout", "stderr"):
        setattr(sys, name, _outlasting(getattr(sys, name)))


class _OutlastingPipe(io.FileIO):
    """What is written after its reader has gone goes nowhere."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def _outlasting(stream: TextIO) -> TextIO:
    try:
        if not stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode):
            return stream
    except (OSError, ValueError, AttributeError):  # closed, or no file
        return stream
    stream.flush()
    pipe = io.BufferedWriter(_OutlastingPipe(stream.fileno(), "w", closefd=False))
    lines = getattr(stream, "line_buffering", False)
    return io.TextIOWrapper(pipe, stream.encoding, stream.errors, line_buffering=lines)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UserError."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; `{self.prog} --help` says what is allowed")


def port(text: str) -> int:
    """Of a server, as a command's argument."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}") from None
    if not 0 <= number <= _LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"{number}: allowed: from 0 to {_LARGEST_PORT}")
    return number


@contextmanager
def user_errors() -> Iterator[None]:
    """Print a user's mistake as ``error: …`` and exit with 2; for an outage or a full disk, exit with 1.

    A path that may not be opened, made or written is the user's mistake; a file that is missing may be ours.

    Any other exception passes.
    """
    # Hydra would print and exit by itself; with this set it raises, and we print.
    before = os.environ.get(_FULL_ERROR)
    os.environ[_FULL_ERROR] = "1"
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if TRACEBACK_WANTED:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(_USERS_MISTAKE)
    except (OutageError, UnfinishedSearchError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(_OTHER)
    except OSError as error:
        bad_path = error.filename is not None and error.errno in _BAD_PATH
        if not (bad_path or error.errno in _DISK_FULL) or TRACEBACK_WANTED:
            raise
        what = f"{error.filename}: " if error.filename else ""
        if bad_path:
            print(f"error: {what}{error.strerror}; allowed: a path that can be used", file=sys.stderr)
            sys.exit(_USERS_MISTAKE)
        print(f"error: {what}{error.strerror}; the same command goes on when there is room", file=sys.stderr)
        sys.exit(_OTHER)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(_OTHER)
    finally:
        if before is None:
            del os.environ[_FULL_ERROR]


def one_line(error: BaseException) -> str:
    """The message without Hydra's layout: key, value and what is allowed, on one line."""
    cause = _innermost(error)
    if isinstance(cause, UserError):
        return str(cause)
    if isinstance(error, MissingConfigException) and (options := _options(error)):
        return _unknown_choice(error.missing_cfg_file or "", options)
    if isinstance(cause, OmegaConfBaseException):
        return _bad_key(cause)
    return " ".join(str(error).split())


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _options(error: MissingConfigException) -> list[str]:
    """What may be chosen. For a list of choices Hydra only says which folders it searched."""
    options = error.options
    if options is None:
        group = (error.missing_cfg_file or "").rpartition("/")[0]
        folders = [Path(path) / group for path in re.findall(r"path=file://(.*)", str(error)) if group]
        options = [path.stem for folder in folders for path in folder.glob("*.yaml")]
    return sorted(option for option in options if not option.startswith("_"))


def _unknown_choice(asked: str, options: list[str]) -> str:
    group, _, choice = asked.rpartition("/")
    more = _MORE_CHOICES.get(group, "")
    return f"{group}={choice}: unknown{did_you_mean(choice, options)}; allowed: {', '.join(options)}{more}"


def _bad_key(error: OmegaConfBaseException) -> str:
    message = " ".join((error.msg or str(error)).split("\n")[0].split())
    key = error.full_key or str(error.key or "")
    if "not in" in message:
        parent = error.parent_node
        allowed = sorted(str(name) for name in parent) if parent is not None else []
        allowed = [name for name in allowed if name != "hydra"]
        hint = did_you_mean(key.rpartition(".")[2], allowed)
        return f"{key}: unknown key{hint}" + (f"; allowed here: {', '.join(allowed)}" if allowed else "")
    enum = re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", message)
    if enum:
        return f"{key}={enum[1]}: allowed: {enum[2]}"
    return f"{key}: {message}" if key and key not in message else message
