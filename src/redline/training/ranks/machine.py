"""This machine's ranks: processes of one run, one a device, started and watched by torch's launcher."""

import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import SimpleQueue, active_children, get_context
from multiprocessing.sharedctypes import RawArray
from typing import Any

from omegaconf import DictConfig
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

from redline.errors import UserError
from redline.search import Score, Trial
from redline.training.run import run

_EVERY = 0.5  # seconds between two signs of life


@dataclass(frozen=True)
class Ended:
    """What rank 0 gives back. ``watch``: its state."""

    score: Score
    watch: dict[str, Any]
    page: str | None


def run_ranks(
    cfg: DictConfig, trial: Trial, *, name: str, store: str = "localhost:0", owns_store: bool = True
) -> Ended | None:
    """Start ``trainer.devices`` ranks, and wait for them. None where rank 0 is on another machine, and where
    SIGTERM, which is passed on to the ranks, cancelled the run.

    They are forked from this process, which must not have computed by then, nor have touched a GPU. Ranks of
    all machines meet under the ``name`` at the address ``store``. Raises UserError where a rank has met one,
    and RuntimeError where one has crashed: then all are ended.
    """
    # With the driver's count instead of CUDA's own, after which forked processes could not use CUDA.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    for part in ("multiprocessing", "agent.server"):  # what they say is in what is raised
        logging.getLogger(f"torch.distributed.elastic.{part}.api").setLevel(logging.CRITICAL)
    logs = trial.directory / f"ranks-{os.uname().nodename}-{os.getpid()}"
    said, lives = get_context("fork").SimpleQueue(), _Lives(cfg.trainer.devices)
    seconds = int(cfg.trainer.rank_timeout)
    config = LaunchConfig(
        min_nodes=cfg.trainer.num_nodes,
        max_nodes=cfg.trainer.num_nodes,
        nproc_per_node=cfg.trainer.devices,
        run_id=name,
        rdzv_backend="c10d",
        rdzv_endpoint=store,
        rdzv_configs={"is_host": owns_store, "join_timeout": seconds, "read_timeout": seconds},
        local_addr="localhost" if owns_store else None,
        max_restarts=0,
        start_method="fork",
        logs_specs=DefaultLogsSpecs(str(logs)),
        signals_to_handle="SIGTERM",
    )
    before = signal.getsignal(signal.SIGTERM)
    ended = threading.Event()
    threading.Thread(target=lives.watch_over, args=(cfg.trainer.rank_timeout, ended), daemon=True).start()
    try:
        return elastic_launch(config, _rank)(cfg, trial, said, lives).get(0)
    except SignalException:
        return None
    except ChildFailedError as error:
        raise _why(error, said) from None
    finally:
        ended.set()
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(logs, ignore_errors=True)


def _why(error: ChildFailedError, said: SimpleQueue) -> Exception:
    """The user's mistake that a rank has met, or else what the first one to fail said, or died of."""
    number, failure = error.get_first_failure()
    last_words = []
    while not said.empty():
        last_words.append(said.get())
    mistakes = [its for its in last_words if isinstance(its, UserError)]
    return [*mistakes, *last_words, RuntimeError(f"rank {number}: {failure.message}")][0]


class _Lives:
    """Signs of life of this machine's ranks, in memory that they share. All may hang: then none waits."""

    def __init__(self, count: int) -> None:
        self.pids, self.latest = RawArray("l", count), RawArray("d", count)

    def begin(self, number: int) -> None:
        """Give signs of life, from the process that is this rank."""
        self.latest[number], self.pids[number] = time.monotonic(), os.getpid()
        threading.Thread(target=self._go_on, args=(number,), daemon=True).start()

    def _go_on(self, number: int) -> None:
        while True:
            time.sleep(_EVERY)
            self.latest[number] = time.monotonic()

    def watch_over(self, timeout: float, ended: threading.Event) -> None:
        """Kill a rank that has given none for ``timeout`` seconds; torch's launcher ends the others."""
        while not ended.wait(_EVERY):
            for pid, latest in zip(self.pids, self.latest, strict=True):
                if pid and time.monotonic() - latest > timeout:
                    for child in active_children():  # of one that has ended, the number may be another's
                        if child.pid == pid:
                            child.kill()


def _rank(cfg: DictConfig, trial: Trial, said: SimpleQueue, lives: _Lives) -> Ended | None:
    """A rank's whole life. It finds itself by the environment: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR."""
    # Not SIGINT, which torch sets: a rank that is stopped, or waits for another one, would not hear it.
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    signal.signal(signal.SIGTERM, canceller(trial))
    lives.begin(int(os.environ["LOCAL_RANK"]))
    first = os.environ["RANK"] == "0"
    if not first:
        trial.watch.silence()
        logging.disable(logging.WARNING)  # rank 0 says the same
    try:
        score = run(cfg, trial)
    except UserError as error:
        said.put(error)
        sys.exit(1)
    # Each ends this rank, and torch's launcher ends the others.
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        said.put(RuntimeError(f"rank {os.environ['RANK']}: {type(error).__name__}: {error}"))
        sys.exit(1)
    if trial.cancelled:
        sys.exit(1)  # torch waits for all results of ranks that end well
    return Ended(score, trial.watch.state_dict(), trial.watch.page) if first else None


def canceller(trial: Trial) -> Callable[..., None]:
    """A signal's handler."""

    def cancel(*_: object) -> None:
        trial.watch.cancelled = True

    return cancel
