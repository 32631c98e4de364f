"""Batches of the user's own that depend on seed, epoch and place alone, so that a run can go on."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.data import DataLoader


class Replayed:
    """The batches of ``loader``. Of an epoch that was begun before, those already trained are skipped."""

    def __init__(self, loader: DataLoader[Any], seed: int, trainer: L.Trainer) -> None:
        self.loader, self.seed, self.trainer = loader, seed, trainer

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        epoch = self.trainer.current_epoch
        self._begin(epoch, 0)
        batches = iter(self.loader)  # draws the order, and the seed of its workers
        for number in range(len(self.loader)):
            self._begin(epoch, number)  # of what is drawn while a batch is made, here
            batch = next(batches)
            if number >= done:
                yield batch

    def _begin(self, epoch: int, number: int) -> None:
        seed = ((self.seed * 1_000_003 + epoch) * 1_000_003 + number) % 2**32
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


def replay(owner: Any, seed: int, trainer: L.Trainer) -> None:
    """Have the training loaders of a module or a datamodule be `Replayed`; those without a length are not."""
    make: Callable[[], Any] = owner.train_dataloader

    def train_dataloader() -> Any:
        return apply_to_collection(make(), DataLoader, lambda its: _replayed(its, seed, trainer))

    owner.train_dataloader = train_dataloader


def _replayed(loader: DataLoader[Any], seed: int, trainer: L.Trainer) -> Any:
    try:
        len(loader)
    except TypeError:  # of an iterable dataset
        return loader
    return Replayed(loader, seed, trainer)
