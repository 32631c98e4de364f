"""Tasks in processes of their own, one a slot, forked from a server that has the slow imports done."""

import multiprocessing as mp
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from redline.errors import UserError

NOWHERE = Path(os.devnull)
Send = Callable[[Any], None]
Task = Callable[..., Any]  # called with its arguments and, last, a `Send` for messages on the way
_STARTS = 5  # tries to start a task, before the error is raised


@dataclass(frozen=True)
class Ended:
    """How a task ended: with a ``result``, with the user's mistake, or with a crash (its last words)."""

    result: Any = None
    user_error: str | None = None
    crash: str | None = None


@dataclass
class Slot:
    """A place to run one task at a time: one GPU or several, or a share of the CPU's cores."""

    index: int
    gpu: str | None  # what CUDA_VISIBLE_DEVICES becomes; of several GPUs, a list with commas
    process: Any = None
    pipe: Connection | None = None

    @property
    def free(self) -> bool:
        return self.process is None


class Pool:
    """Slots and the server their tasks are forked from.

    The server imports ``preload`` once, without starting threads or touching a GPU; a task then starts
    in milliseconds, and its crash harms no other. Tasks end with this process, however it ends.
    """

    def __init__(self, slots: list[Slot], preload: Sequence[str] = ()) -> None:
        self.slots = slots
        self._context = mp.get_context("forkserver")
        # The server is a fresh interpreter: it needs our import path.
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._context.set_forkserver_preload(["redline.search.workers.silent_end", *preload])

    def warm_up(self) -> None:
        """Start the server now, in the background: its imports take seconds."""
        with suppress(OSError):  # `start` tries again
            _start_server()

    def start(self, slot: Slot, task: Task, arguments: tuple[Any, ...], log: Path | None) -> None:
        """Run ``task`` in a process; what it prints goes to ``log``; None: where ours goes.

        The task may be a function of a notebook or a script: it is pickled with what it refers to.
        """
        assert slot.free
        pickled = cloudpickle.dumps((task, arguments))
        attempts = _STARTS
        while slot.free:
            ours, theirs = self._context.Pipe(duplex=False)
            process = self._context.Process(target=_child, args=(theirs, pickled, slot.gpu, log))
            try:
                _start_server()
                with _no_main():
                    process.start()
            except (OSError, EOFError):
                ours.close()
                attempts -= 1
                if attempts == 0:
                    raise
                time.sleep(0.2)  # where the server was killed, the next start makes another
            else:
                slot.process, slot.pipe = process, ours
            finally:
                theirs.close()

    def poll(self, timeout: float) -> list[tuple[Slot, Any]]:
        """Wait at most ``timeout`` seconds for messages and `Ended`; an ending frees its slot."""
        busy = {slot.pipe: slot for slot in self.slots if slot.pipe is not None}
        events: list[tuple[Slot, Any]] = []
        for pipe in wait(list(busy), timeout):
            assert isinstance(pipe, Connection)
            slot = busy[pipe]
            try:
                message = pipe.recv()
            except (EOFError, OSError):  # OSError: killed while it sent a message
                message = Ended(crash=self._last_words(slot))
            if isinstance(message, Ended):
                self._free(slot)
            events.append((slot, message))
        return events

    def call(
        self,
        task: Task,
        arguments: tuple[Any, ...],
        log: Path | None = NOWHERE,
        *,
        hear: Callable[[Any], object] = lambda message: None,
        timeout: float | None = None,
        tries: int = 1,
    ) -> Ended:
        """Run one task on the first slot, and wait for it at most ``timeout`` seconds (None: for ever).

        One that crashes is started again, ``tries`` times in all; ``hear`` is given its messages.
        """
        slot = self.slots[0]
        until = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            ended = None
            try:
                self.start(slot, task, arguments, log)
                while ended is None and time.monotonic() < until:
                    for _, message in self.poll(0.5):
                        if isinstance(message, Ended):
                            ended = message
                        else:
                            hear(message)
            finally:
                self.stop(slot)
            if ended is None:
                return Ended(crash=f"took more than {timeout:g} s")
            tries -= 1
            if ended.crash is None or tries < 1:
                return ended
            where = f"; its log is in {log}" if log else ""
            hear(f"{task.__name__}: crashed ({ended.crash}), tried again{where}")

    def hurry(self) -> None:
        """Ask all tasks to end, so that they do so side by side when each is stopped."""
        for slot in self.slots:
            if slot.process is not None:
                slot.process.terminate()

    def stop(self, slot: Slot, grace_period: float = 3.0) -> None:
        """End a slot's task: by SIGTERM, and after so many seconds by force."""
        if slot.process is None:
            return
        slot.process.terminate()
        slot.process.join(grace_period)
        if slot.process.is_alive():
            slot.process.kill()
        self._free(slot)

    def _free(self, slot: Slot) -> None:
        slot.process.join()
        slot.process.close()
        assert slot.pipe is not None
        slot.pipe.close()
        slot.process = slot.pipe = None

    def _last_words(self, slot: Slot) -> str:
        slot.process.join()
        code = slot.process.exitcode
        return f"killed by signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


@contextmanager
def _no_main() -> Iterator[None]:
    """A child would run the user's script again to find its functions, which are pickled already."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_server() -> None:
    """Start the server where none runs; it ignores Ctrl-C until its first import, `silent_end`."""
    resource_tracker.ensure_running()  # its start would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(pipe: Connection, pickled: bytes, gpu: str | None, log: Path | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process too, but the parent decides.
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if gpu is not None:
        # AMD's HIP heeds its own before the other.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["HIP_VISIBLE_DEVICES"] = gpu
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in order with the errors
    try:
        task, arguments = pickle.loads(pickled)
        ended = Ended(result=task(*arguments, pipe.send))
    except UserError as error:
        ended = Ended(user_error=str(error))
    # A crash must reach the coordinator as one, whatever it is.
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        ended = Ended(crash=f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    sys.stderr.flush()
    pipe.send(ended)


def _die_with_parent() -> None:
    parent = mp.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
