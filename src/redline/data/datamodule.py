"""The Lightning side: batches as tensors."""

from collections.abc import Callable, Iterable, Iterator
from itertools import product

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor

from redline.data.batches import train_batch, val_batches
from redline.data.token_cache import TokenCorpus


class _Stream:
    """An iterable that starts anew whenever Lightning iterates it.

    A batch takes far less time than a step, so there are no workers to start. It has no length: with one,
    Lightning would count a resumed run as an epoch cut short, and warn.
    """

    def __init__(self, batches: Callable[[], Iterator[np.ndarray]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Tensor]:
        return map(torch.from_numpy, self._batches())


class TokenData(LightningDataModule):
    """Batches (B, T + 1) int64 of a tokenized corpus: inputs are ``[:, :-1]``, targets ``[:, 1:]``.

    Training batches start at the trainer's step, so a resumed run sees what an uninterrupted one would. Each
    of the trainer's ranks has its share of a batch.
    Lightning's fetcher asks for one batch ahead. No batch depends on another, so that changes nothing.

    Args:
        sequence_length: T, tokens.
        batch_size: sequences of an optimizer step.
        accumulate: in so many batches, one after the other. B is the share of one of them and of one rank.
        val_batches: at most so many; see `redline.data.batches.val_batches`.
        seed: of the training batches.
        max_steps: at least the trainer's.
    """

    def __init__(
        self,
        corpus: TokenCorpus,
        sequence_length: int,
        batch_size: int,
        val_batches: int,
        seed: int,
        max_steps: int,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        self.corpus = corpus
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.val_batches = val_batches
        self.seed = seed
        self.max_steps = max_steps
        self.accumulate = accumulate

    def train_dataloader(self) -> Iterable[Tensor]:
        if self.trainer is not None:
            # Lightning would start empty epochs for ever to reach a step that has no batch.
            assert 0 <= self.trainer.max_steps <= self.max_steps, "more steps than batches"
        return _Stream(self._train_batches)

    def val_dataloader(self) -> Iterable[Tensor]:
        return _Stream(self._val_batches)

    def _train_batches(self) -> Iterator[np.ndarray]:
        start = 0 if self.trainer is None else self.trainer.global_step
        rank, world = self._share
        of = (self.corpus.train, self.sequence_length, self.batch_size, self.seed)
        for step, micro_step in product(range(start, self.max_steps), range(self.accumulate)):
            yield train_batch(*of, step, micro_step, rank, accumulate=self.accumulate, world=world)

    @property
    def _share(self) -> tuple[int, int]:
        """The rank, and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _val_batches(self) -> Iterator[np.ndarray]:
        # What is too much for the memory at once in training may be so here. All ranks have as many tokens.
        rank, world = self._share
        for batch in val_batches(self.corpus.val, self.sequence_length, self.batch_size, self.val_batches):
            yield from np.split(batch, self.accumulate * world)[rank::world]
