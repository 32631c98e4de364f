"""Functions run by several processes at once, as `torch.distributed` has them."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from socket import socket
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = 100.0  # seconds


def on_ranks(number: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``function`` gives on each rank. All are forked from here, and use gloo."""
    with closing(socket()) as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(number)]
    ranks = [
        context.Process(target=_rank, args=(rank, number, port, pipes[rank][1], function, args))
        for rank in range(number)
    ]
    for rank in ranks:
        rank.start()
    try:
        found = [ours.recv() if ours.poll(TIMEOUT) else "no answer" for ours, _ in pipes]
    finally:
        for rank in ranks:
            rank.kill()
    failed = {rank: its for rank, its in enumerate(found) if isinstance(its, str)}
    assert not failed, "\n".join(f"rank {rank}: {its}" for rank, its in failed.items())
    return [its[0] for its in found]


def _rank(rank: int, number: int, port: int, answer: Any, function: Any, args: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(number),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "tests",
    }
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=TIMEOUT / 2))
        answer.send((function(*args),))
    except BaseException:  # noqa: BLE001
        answer.send(traceback.format_exc())
