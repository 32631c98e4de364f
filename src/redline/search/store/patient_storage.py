"""Retries storage calls during an outage."""

import abc
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Thread
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from redline.database import first_opening
from redline.errors import OutageError

_TICK = 0.2  # seconds between two looks at an answer that has not come yet
_SLOW = 1.0  # seconds that an answer may take before others' work goes on meanwhile
_SILENT = 10.0  # seconds after which one that has not come is spoken of
_AGAIN_EVERY = 1.0  # seconds between a failure and the next try

# SQLite calls everything operational, a missing table too. Primary codes: busy, locked, I/O error, full,
# cannot open.
_SQLITE_OUTAGES = {5, 6, 10, 13, 14}


class PatientStorage(BaseStorage):
    """Passes every operation on to another storage, each asked for until it is answered.

    A try that fails may have got through all the same, with only its answer lost. Everything but
    ``create_new_trial`` does nothing more when it is done twice; that may leave a second trial, which
    the code that creates trials must look for.

    An operation runs on a thread of its own: a dead connection or a locked file can block it for long, and
    Ctrl-C must not wait for that.
    """

    def __init__(self, storage: BaseStorage, name: str, timeout: float) -> None:
        self.name = name  # in messages
        self.timeout = timeout  # seconds without an answer after which OutageError is raised
        self.say: Callable[[str], Any] = print
        self.meanwhile: Callable[[], Any] | None = None  # what goes on while an answer is waited for
        self._storage = storage
        self._silent_since: float | None = None

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's, and a try that finds the trial ended as an earlier one would have has got through."""
        tries = 0

        def end() -> bool:
            nonlocal tries
            tries += 1
            try:
                return self._storage.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                found = self._storage.get_trial(trial_id)
                if tries > 1 and (found.state, found.values) == (state, values and list(values)):
                    return True
                raise

        return self._ask(end)

    @contextmanager
    def briefly(self, seconds: float = 1.0) -> Iterator[None]:
        """For last words: the storage is not waited for much longer, and nothing goes on meanwhile."""
        before = self.timeout, self.meanwhile
        self.timeout, self.meanwhile = seconds, None
        try:
            yield
        finally:
            self.timeout, self.meanwhile = before

    @contextmanager
    def alone(self, url: str) -> Iterator[None]:
        """Keeps other processes out, as `first_opening` does; ``url`` is this storage's.

        That asks the database too, and is waited for as every operation is.
        """
        with ExitStack() as opening:
            self._ask(lambda: opening.enter_context(first_opening(url)))
            yield

    def _ask(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        while True:
            asked, answer = time.monotonic(), _begin(partial(operation, *args, **kwargs))
            while not wait([answer], _TICK).done:
                self._pass_time(asked, "no answer yet")
            error = answer.exception()
            reason = None if error is None else _outage(error)
            if reason is None:
                self._answered()
                return answer.result()
            self._unanswered(asked, reason)
            again = time.monotonic() + _AGAIN_EVERY
            while time.monotonic() < again:
                self._pass_time(asked, reason)
                time.sleep(_TICK)

    def _pass_time(self, asked: float, reason: str) -> None:
        waited = time.monotonic() - (asked if self._silent_since is None else self._silent_since)
        if waited > self.timeout:
            raise OutageError(
                f"{self.name}: has not answered for {waited:.0f} s ({reason}); "
                "the same command goes on when it does"
            )
        if waited > _SILENT:
            self._unanswered(asked, reason)
        if waited > _SLOW and self.meanwhile is not None:
            self.meanwhile()

    def _unanswered(self, asked: float, reason: str) -> None:
        if self._silent_since is None:
            self._silent_since = asked
            self.say(f"the storage does not answer ({reason}); waiting for it, at most {self.timeout:.0f} s")

    def _answered(self) -> None:
        if self._silent_since is not None:
            self.say(f"the storage answers again, after {time.monotonic() - self._silent_since:.0f} s")
            self._silent_since = None


def _patiently(name: str) -> Callable[..., Any]:
    def ask(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self._ask(getattr(self._storage, name), *args, **kwargs)

    return ask


for _name in vars(BaseStorage).keys() - vars(PatientStorage).keys():
    if not _name.startswith("_"):
        setattr(PatientStorage, _name, _patiently(_name))
abc.update_abstractmethods(PatientStorage)  # type: ignore[type-abstract]


def _begin(operation: Callable[[], Any]) -> Future[Any]:
    answer: Future[Any] = Future()

    def work() -> None:
        try:
            answer.set_result(operation())
        # The caller of `_ask` raises it.
        except BaseException as error:  # noqa: BLE001
            answer.set_exception(error)

    # A daemon: the end of the program does not wait for it.
    Thread(target=work, daemon=True).start()
    return answer


def _outage(error: BaseException) -> str | None:
    """Why the storage could not answer, in a line; None where the error is about what was asked of it."""
    if not isinstance(error, StorageInternalError | SQLAlchemyError):
        return None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError) and _is_outage(cause):
            return str(cause.orig).strip().partition("\n")[0]
        cause = cause.__cause__ or cause.__context__
    return None


def _is_outage(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_OUTAGES
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
