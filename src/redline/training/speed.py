"""How fast a run trains, and what of its time goes elsewhere, by the host's clock: it waits for no device."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch.profilers import Profiler
from omegaconf import OmegaConf

from redline import metrics
from redline.config import CONF

_BATCH = "run_training_batch"
_FIRST = 2  # steps that are not counted: they compile, and allocate


def peak_flops(tflops: Mapping[str, float | None], precision: str) -> float | None:
    """In FLOP/s, from TFLOP/s by number format; None where the device has no such instructions."""
    found = tflops[precision.partition("-")[0]]
    return None if found is None else found * 1e12


def peak_here(device: torch.device, precision: str) -> float | None:
    """Of this device, by its name in `conf/device/`; None for one that is not there, such as any CPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    found: list[Any] = [OmegaConf.load(path) for path in (CONF / "device").glob("[!_]*.yaml")]
    return next((peak_flops(its.tflops, precision) for its in found if name in its.names), None)


class StepClock(Profiler):
    """Lightning tells it when an action starts and stops. ``reading``: whether taps read the step whose last
    micro-batch is computed, one of ``accumulate``.

    Taps cost what their callback takes, and what a step that they read takes longer than others.
    """

    def __init__(self, accumulate: int, reading: Callable[[], bool]) -> None:
        super().__init__()
        self.accumulate, self.reading = accumulate, reading
        self.batches = 0
        self._step = 0.0  # seconds, of the one under way
        self._began: dict[str, float] = {}
        self._spent = {metrics.IN_DATA: 0.0, metrics.IN_TAPS: 0.0, metrics.IN_CHECKPOINTS: 0.0}
        self._of_steps = {True: [0, 0.0], False: [0, 0.0]}  # read or not: so many, and their seconds
        self._from = self._to = 0.0

    def start(self, action_name: str) -> None:
        if action_name in _KINDS or action_name == _BATCH:
            self._began[action_name] = time.monotonic()

    def stop(self, action_name: str) -> None:
        began = self._began.pop(action_name, None)
        if began is None:
            return
        now = time.monotonic()
        if action_name == _BATCH:
            self.batches += 1
            self._step += now - began
            if self.batches % self.accumulate == 0:
                self._end_step(now)
        elif self.steps >= _FIRST:
            self._spent[_KINDS[action_name]] += now - began

    @property
    def steps(self) -> int:
        return self.batches // self.accumulate

    def _end_step(self, now: float) -> None:
        self._to = now
        if self.steps <= _FIRST:
            self._from = now
        else:
            of_kind = self._of_steps[self.reading()]
            of_kind[0] += 1
            of_kind[1] += self._step
        self._step = 0.0

    def summary(self) -> str:
        return ""

    def found(self, tokens: float, flops_per_token: int, peak: float | None) -> dict[str, float]:
        """By metric; ``tokens``: of a step; ``peak``: of all devices, in FLOP/s. Nothing of two steps."""
        seconds, steps = self._to - self._from, self.steps - _FIRST
        if steps < 1 or not seconds:
            return {}
        (read, while_read), (others, while_not) = self._of_steps[True], self._of_steps[False]
        longer = while_read - read * while_not / others if others else 0.0
        spent = {**self._spent, metrics.IN_TAPS: self._spent[metrics.IN_TAPS] + max(0.0, longer)}
        tokens_per_second = steps * tokens / seconds
        flops = tokens_per_second * flops_per_token
        return {
            metrics.TOKENS_PER_SECOND: tokens_per_second,
            metrics.FLOPS_PER_SECOND: flops,
            **({} if peak is None else {metrics.UTILISATION: flops / peak}),
            **{name: its / seconds for name, its in spent.items()},
        }


_KINDS = {
    "[_TrainingEpochLoop].train_dataloader_next": metrics.IN_DATA,
    "[Callback]Monitor.on_train_batch_start": metrics.IN_TAPS,
    "[Callback]Monitor.on_train_batch_end": metrics.IN_TAPS,
    "save_checkpoint": metrics.IN_CHECKPOINTS,
}
