"""One run on several devices: for each a process, called a rank, started and watched by torch's launcher."""

import logging
import os
import shutil
import signal
import sys
import threading
import traceback
import uuid
from dataclasses import dataclass
from multiprocessing import SimpleQueue, get_context
from typing import Any

from omegaconf import DictConfig
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

from redline.errors import UserError
from redline.search import Score, Trial
from redline.stability import Watch
from redline.training.run import run


@dataclass(frozen=True)
class _Ended:
    """What rank 0 gives back. ``watch``: its state."""

    score: Score
    watch: dict[str, Any]
    page: str | None


def launch(cfg: DictConfig, trial: Trial) -> Score:
    """`run` here, or on as many ranks as ``trainer.devices`` asks for. Raises what `run` raises.

    Ranks are forked from this process, which must not have computed by then, nor have touched a GPU. Each
    judges the run by itself: `run` gives all the same numbers. Rank 0 alone reports to the trial. SIGTERM is
    passed on, and cancels the run.
    """
    devices, threads = cfg.trainer.devices, trial.threads
    if devices > 1 and threads is None:
        threads = os.cpu_count() or 1
    if cfg.trainer.threads is None and threads is not None:
        cfg.trainer.threads = max(1, threads // devices)
    if devices == 1:
        return run(cfg, trial)
    # With the driver's count instead of CUDA's own, after which forked processes could not use CUDA.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    logs = trial.directory / "ranks"
    shutil.rmtree(logs, ignore_errors=True)
    said = get_context("fork").SimpleQueue()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        rdzv_timeout=int(cfg.trainer.rank_timeout),
        local_addr="localhost",
        max_restarts=0,
        start_method="fork",
        logs_specs=DefaultLogsSpecs(str(logs)),
        signals_to_handle="SIGTERM",
    )
    for name in ("multiprocessing", "agent.server"):  # what they say is in what is raised
        logging.getLogger(f"torch.distributed.elastic.{name}.api").setLevel(logging.CRITICAL)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ended = elastic_launch(config, _rank)(cfg, trial, said)[0]
    except SignalException:
        trial.watch.cancelled = True
        return Score(None)
    except ChildFailedError as error:
        raise _why(error, said) from None
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(logs, ignore_errors=True)
    trial.watch.load_state_dict(ended.watch)
    if ended.page is not None:
        trial.link(ended.page)
    return ended.score


def _why(error: ChildFailedError, said: SimpleQueue) -> Exception:
    """The user's mistake that a rank has met, or else what the first one to fail said, or died of."""
    number, failure = error.get_first_failure()
    last_words = []
    while not said.empty():
        last_words.append(said.get())
    mistakes = [its for its in last_words if isinstance(its, UserError)]
    return [*mistakes, *last_words, RuntimeError(f"rank {number}: {failure.message}")][0]


def _rank(cfg: DictConfig, trial: Trial, said: SimpleQueue) -> _Ended | None:
    """A rank's whole life. It finds itself by the environment: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR."""
    # Not SIGINT, which torch sets: a rank that is stopped, or waits for another one, would not hear it.
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    # Lightning's handler of SIGTERM sends messages between ranks wherever each of them is.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_hear_cancel, args=(trial.watch,), daemon=True).start()
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
    return _Ended(score, trial.watch.state_dict(), trial.watch.page) if first else None


def _hear_cancel(watch: Watch) -> None:
    signal.sigwait({signal.SIGTERM})
    watch.cancelled = True
