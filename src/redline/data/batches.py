"""Batches as pure functions of their arguments: a resumed run needs no data state."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from redline.errors import UserError


class Tokens(Protocol):
    """An array of tokens, or what gives arrays for slices."""

    def __len__(self) -> int: ...

    def __getitem__(self, window: slice, /) -> np.ndarray: ...


def train_batch(
    tokens: Tokens,
    sequence_length: int,
    batch_size: int,
    seed: int,
    step: int,
    micro_step: int = 0,
    rank: int = 0,
    *,
    accumulate: int = 1,
    world: int = 1,
) -> np.ndarray:
    """Random windows, each position equally likely, drawn anew at every step.

    A step's batch is dealt out to its ``accumulate`` micro-steps, and in each to the ``world`` ranks, which
    have it whole together.

    Args:
        tokens: (N,) of any unsigned type.
        sequence_length: T, tokens.
        batch_size: B, sequences of a whole step; a multiple of ``accumulate * world``.
        seed: 0 or more; with ``step``, decides the step's windows, and nothing else does.
        step: 0 or more.

    Returns:
        (B / (accumulate * world), T + 1) int64: inputs are ``[:, :-1]``, targets ``[:, 1:]``.

    Raises:
        UserError: the tokens do not fill one batch.
    """
    check_one_batch(tokens, sequence_length, batch_size, part="training")
    starts_B = np.random.default_rng([seed, step]).integers(len(tokens) - sequence_length, size=batch_size)
    assert batch_size % (accumulate * world) == 0
    share = batch_size // (accumulate * world)
    first = (micro_step * world + rank) * share
    return _windows(tokens, starts_B[first : first + share], sequence_length)


def val_batches(tokens: Tokens, sequence_length: int, batch_size: int, count: int) -> Iterator[np.ndarray]:
    """Windows that do not overlap, evenly spread from the first token to the last; the same for every run.

    Returns:
        ``count`` batches (B, T + 1) int64, or as many full ones as the tokens hold.

    Raises:
        UserError: the tokens do not fill one batch.
    """
    tokens_a_batch = check_one_batch(tokens, sequence_length, batch_size, part="validation")
    windows = min(count, len(tokens) // tokens_a_batch) * batch_size
    last_start = len(tokens) - (sequence_length + 1)
    starts = np.arange(windows) * last_start // max(windows - 1, 1)
    return (_windows(tokens, starts_B, sequence_length) for starts_B in starts.reshape(-1, batch_size))


def check_one_batch(tokens: Tokens, sequence_length: int, batch_size: int, part: str) -> int:
    """Returns how many tokens a batch takes.

    Raises:
        UserError: ``tokens``, the training or validation ``part``, has fewer.
    """
    needed = batch_size * (sequence_length + 1)
    if len(tokens) < needed:
        raise UserError(
            f"data.batch_size={batch_size} with data.sequence_length={sequence_length}: one batch needs"
            f" {needed} tokens, the {part} part has {len(tokens)};"
            " allowed: smaller ones, or more in data.path"
        )
    return needed


def _windows(tokens: Tokens, starts_B: np.ndarray, sequence_length: int) -> np.ndarray:
    # A memmap's own slices take longer.
    plain = tokens.view(np.ndarray) if isinstance(tokens, np.ndarray) else tokens
    windows = np.empty((len(starts_B), sequence_length + 1), np.int64)
    for window, start in zip(windows, starts_B.tolist(), strict=True):
        window[:] = plain[start : start + sequence_length + 1]
    return windows
