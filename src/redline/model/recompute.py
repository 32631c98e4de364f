"""Computing a block again in the backward pass, instead of keeping what it computed the first time."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

_again = False


def recomputing() -> bool:
    """Whether a block is being computed again: what it counted or changed must not be once more."""
    return _again


def recompute(block: nn.Module) -> None:
    """Have ``block`` keep its inputs only, and draw the same random numbers both times (Chen et al. 2016,
    arXiv 1604.06174).
    """
    block.forward = partial(_recomputed, block.forward)


def _recomputed(forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if torch.compiler.is_compiling():
        # A compiled graph runs no hook and no Python a second time, and takes no context.
        return checkpoint(forward, *inputs, use_reentrant=False, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=_contexts, **named)


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _second_time()


@contextmanager
def _second_time() -> Iterator[None]:
    global _again  # the blocks and their hooks take no argument that could tell them
    _again = True
    try:
        yield
    finally:
        _again = False
