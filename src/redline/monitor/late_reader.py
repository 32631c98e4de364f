"""Read numbers from the device late, so that reading never waits for the step in flight."""

from collections.abc import Sequence

import torch
from torch import Tensor


class LateReader:
    """A queue of one: ``push`` takes a step's tensors and gives the numbers of those before, in one row."""

    def __init__(self) -> None:
        self._pending: tuple[int, Tensor, torch.cuda.Event | None] | None = None

    def push(self, step: int, tensors: Sequence[Tensor]) -> tuple[int, list[float]] | None:
        ready = self.flush()
        values_N = torch.cat([tensor.reshape(-1) for tensor in tensors]) if tensors else torch.empty(0)
        copied = None
        if values_N.is_cuda:
            values_N = values_N.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._pending = (step, values_N, copied)
        return ready

    def flush(self) -> tuple[int, list[float]] | None:
        """What is still queued; waits for the device where needed."""
        if self._pending is None:
            return None
        step, values_N, copied = self._pending
        self._pending = None
        if copied is not None:
            copied.synchronize()
        return step, values_N.tolist()
