"""Jobs in processes of their own, one a slot, forked from a server that has torch imported already."""

import importlib
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from redline.errors import UserError

Send = Callable[[dict[str, Any]], None]
Job = Callable[[dict[str, Any], Send], dict[str, Any]]
_STARTS = 5  # of a job, before the machine is held to be unable to
_START_AGAIN = 5.0  # seconds between two starts of the job that is kept


@dataclass(frozen=True)
class Ended:
    """How a job ended: with a ``result``, with the user's mistake, or with a crash (its last words)."""

    result: dict[str, Any] | None = None
    user_error: str | None = None
    crash: str | None = None


@dataclass
class Slot:
    """A place to run one job at a time: a GPU, or a share of the CPU's cores."""

    index: int
    gpu: str | None  # what CUDA_VISIBLE_DEVICES becomes
    process: Any = None
    pipe: Connection | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def free(self) -> bool:
        return self.process is None


class Pool:
    """Slots and the server their jobs are forked from.

    The server imports ``preload`` once, without starting threads or touching a GPU; a job then starts
    in milliseconds, and its crash takes nothing along. Jobs end with this process, however it ends.
    """

    def __init__(self, slots: list[Slot], preload: list[str]) -> None:
        self.slots = slots
        self._kept: tuple[Slot, Callable[[], None], Callable[[dict[str, Any]], None]] | None = None
        self._kept_started = -float("inf")
        self._context = mp.get_context("forkserver")
        # The server is a fresh interpreter: it must find what we find.
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._context.set_forkserver_preload(["redline.search.workers.silent_end", *preload])

    def warm_up(self) -> None:
        """Start the server now, beside what else there is to do: its imports take seconds."""
        with suppress(OSError):  # `start` tries again
            _start_server()

    def keep(
        self, job: str, payload: dict[str, Any], log: Path, hear: Callable[[dict[str, Any]], None]
    ) -> None:
        """Run a job that has no end beside the slots, until `release`; if it dies, `poll` starts it again.

        ``hear`` is given its messages.
        """
        slot = Slot(-1, None)
        self._kept = (slot, lambda: self.start(slot, job, payload, log), hear)

    def release(self, patience: float = 3.0) -> None:
        """End the job that is kept, after ``patience`` seconds by force."""
        if self._kept is not None:
            self.stop(self._kept[0], patience)
            self._kept = None

    def start(self, slot: Slot, job: str, payload: dict[str, Any], log: Path) -> None:
        """Run ``module:function`` with ``payload`` in a process; what it prints goes to ``log``."""
        assert slot.free
        attempts = _STARTS
        while slot.free:
            ours, theirs = self._context.Pipe(duplex=False)
            process = self._context.Process(target=_child, args=(theirs, job, payload, slot.gpu, log))
            try:
                _start_server()
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

    def poll(self, timeout: float) -> list[tuple[Slot, dict[str, Any] | Ended]]:
        """Wait at most ``timeout`` seconds for messages and endings; an ending frees its slot."""
        self._look_after_kept()
        busy = {slot.pipe: slot for slot in self.slots if slot.pipe is not None}
        events: list[tuple[Slot, dict[str, Any] | Ended]] = []
        for pipe in wait(list(busy), timeout):
            assert isinstance(pipe, Connection)
            slot = busy[pipe]
            try:
                message = pipe.recv()
            except (EOFError, OSError):  # OSError: killed amid a message
                message = Ended(crash=self._last_words(slot))
            if isinstance(message, Ended):
                self._free(slot)
            events.append((slot, message))
        return events

    def hurry(self) -> None:
        """Ask all jobs to end, so that they do so side by side when each is stopped."""
        for slot in self.slots:
            if slot.process is not None:
                slot.process.terminate()

    def stop(self, slot: Slot, patience: float = 3.0) -> None:
        """End a slot's job: politely, then by force."""
        if slot.process is None:
            return
        slot.process.terminate()
        slot.process.join(patience)
        if slot.process.is_alive():
            slot.process.kill()
        self._free(slot)

    def _look_after_kept(self) -> None:
        if self._kept is None:
            return
        slot, start, hear = self._kept
        while slot.pipe is not None and slot.pipe.poll():
            try:
                message = slot.pipe.recv()
            except (EOFError, OSError):
                message = Ended()
            if isinstance(message, Ended):
                self._free(slot)
            else:
                hear(message)
        now = time.monotonic()
        if slot.free and now - self._kept_started > _START_AGAIN:
            self._kept_started = now
            start()

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


def _start_server() -> None:
    """Start the server where none runs, deaf to Ctrl-C until its first import, `silent_end`."""
    resource_tracker.ensure_running()  # its start would make us hear again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(pipe: Connection, job: str, payload: dict[str, Any], gpu: str | None, log: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too: our parent decides.
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["HIP_VISIBLE_DEVICES"] = gpu
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in order with the errors
    try:
        module, _, name = job.partition(":")
        function: Job = getattr(importlib.import_module(module), name)
        ended = Ended(result=function(payload, pipe.send))
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
