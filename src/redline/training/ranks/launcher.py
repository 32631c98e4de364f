"""Runs a trial on one device, on several, or on several machines. Each machine starts its own ranks."""

import copy
import os
import pickle
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import traceback
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import cloudpickle
from omegaconf import DictConfig
from torch.distributed import TCPStore

from redline.search import Score, Trial
from redline.stability import Progress
from redline.training.ranks.machine import Ended, canceller, run_ranks
from redline.training.run import run

_AGENT = f"from {__name__} import run_agent; run_agent()"
_GRACE_PERIOD = 5.0  # seconds in which the command that starts agents may end


def launch(cfg: DictConfig, trial: Trial) -> Score:
    """`run`, on as many ranks as ``trainer.devices`` and ``trainer.num_nodes`` ask for.

    Each rank judges the run by itself: `run` gives all the same numbers. Rank 0 alone reports to the trial.
    Raises what `run` raises; what a rank dies of is a RuntimeError.
    """
    devices, nodes, threads = cfg.trainer.devices, cfg.trainer.num_nodes, trial.threads
    if devices > 1 and threads is None:
        threads = os.cpu_count() or 1
    if cfg.trainer.threads is None and threads is not None:
        cfg.trainer.threads = max(1, threads // devices)
    if devices == nodes == 1:
        return run(cfg, trial)
    before = signal.signal(signal.SIGTERM, canceller(trial))
    try:
        here = nodes == 1
        ended = run_ranks(cfg, trial, name=uuid.uuid4().hex) if here else _run_on_machines(cfg, trial)
    finally:
        signal.signal(signal.SIGTERM, before)
    if ended is None:
        trial.watch.cancelled = True
        return Score(None)
    trial.watch.load_state_dict(ended.watch)
    if ended.page is not None:
        trial.link(ended.page)
    return ended.score


@dataclass(frozen=True)
class _Order:
    """What an agent is to do. It gets it by its standard input, which other users cannot read."""

    cfg: DictConfig
    trial: Trial
    name: str
    store: str
    launcher: tuple[str, int]
    key: bytes


@dataclass(frozen=True)
class _Done:
    """An agent's last message."""

    ended: Ended | None
    error: Exception | None


def _run_on_machines(cfg: DictConfig, trial: Trial) -> Ended | None:
    """As `run_ranks`, by an agent on each machine. This process starts them by ``trainer.node_command``, and
    is where all meet; an agent ends with it.
    """
    host, key = socket.gethostname(), secrets.token_bytes(32)
    store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
    watch = copy.copy(trial.watch)
    watch.tell = _nobody  # what it tells is of this process
    with Listener(("", 0), authkey=key) as listener:
        order = _Order(
            cfg,
            replace(trial, watch=watch),
            uuid.uuid4().hex,
            f"{host}:{store.port}",
            (host, listener.address[1]),
            key,
        )
        inbox: queue.Queue[Any] = queue.Queue()
        for _ in range(cfg.trainer.num_nodes):
            threading.Thread(
                target=_hear_agent, args=(listener, inbox, cfg.trainer.rank_timeout), daemon=True
            ).start()
        words = [*cfg.trainer.node_command, sys.executable, "-c", _AGENT]
        # Its own session: a terminal's Ctrl-C is for this process to handle.
        with subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True) as agents:
            try:
                assert agents.stdin is not None
                agents.stdin.write(cloudpickle.dumps(order))
                agents.stdin.close()
                ended = _follow(trial, cfg.trainer.num_nodes, inbox, agents)
                with suppress(subprocess.TimeoutExpired):
                    agents.wait(_GRACE_PERIOD)
                return ended
            finally:
                _end(agents)


def _nobody(progress: Progress) -> None:
    pass


def _hear_agent(listener: Listener, inbox: "queue.Queue[Any]", timeout: float) -> None:
    """Pass on its connection and its messages, down to the last."""
    try:
        pipe = listener.accept()
        _notice_loss(pipe, timeout)
        message: Any = pipe
        while True:
            inbox.put(message)
            if isinstance(message, _Done):
                return
            message = pipe.recv()
    except (EOFError, OSError) as error:
        inbox.put(_Done(None, RuntimeError(f"a machine's agent is gone: {type(error).__name__}: {error}")))


def _notice_loss(pipe: Connection, timeout: float) -> None:
    """To wait for messages is an error where the other machine has not been there for so many seconds."""
    every = max(1, int(timeout / 4))
    with socket.socket(fileno=os.dup(pipe.fileno())) as its:
        its.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", every), ("TCP_KEEPINTVL", every), ("TCP_KEEPCNT", 3)):
            its.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        # Keep-alive waits while something that was sent is not acknowledged.
        its.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout * 1000))


def _follow(
    trial: Trial, count: int, inbox: "queue.Queue[Any]", agents: "subprocess.Popen[bytes]"
) -> Ended | None:
    pipes: list[Connection] = []
    told: set[Connection] = set()
    found, done = None, 0
    while done < count:
        for pipe in pipes if trial.cancelled else ():
            if pipe not in told:
                told.add(pipe)
                pipe.send("cancel")
        try:
            message = inbox.get(timeout=0.2)
        except queue.Empty:
            if agents.poll() is not None:
                raise RuntimeError(
                    f"trainer.node_command: exit status {agents.returncode} before the run's end"
                ) from None
            continue
        if isinstance(message, Progress):
            trial.watch.tell(message)
        elif isinstance(message, _Done):
            if message.error is not None:
                raise message.error
            done, found = done + 1, found or message.ended
        else:
            pipes.append(message)
    return found


def _end(agents: "subprocess.Popen[bytes]") -> None:
    agents.terminate()
    with suppress(subprocess.TimeoutExpired):
        agents.wait(_GRACE_PERIOD)
    agents.kill()


def run_agent() -> None:
    """Run this machine's ranks. Rank 0, wherever it is, tells of the run's progress itself."""
    order: _Order = pickle.load(sys.stdin.buffer)
    trial = order.trial
    with Client(order.launcher, authkey=order.key) as pipe:
        _notice_loss(pipe, order.cfg.trainer.rank_timeout)
        threading.Thread(target=_obey, args=(pipe,), daemon=True).start()
        trial.watch.tell = pipe.send
        try:
            ended = run_ranks(order.cfg, trial, name=order.name, store=order.store, owns_store=False)
            pipe.send(_Done(ended, None))
        # Whatever it is, the launcher is to hear of it.
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            pipe.send(_Done(None, error))


def _obey(pipe: Connection) -> None:
    """A message cancels the run. Without the launcher this machine's ranks end, and this process before."""
    try:
        pipe.recv()
        os.kill(os.getpid(), signal.SIGTERM)
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)
