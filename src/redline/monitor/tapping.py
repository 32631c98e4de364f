"""Turns taps on for the steps that are read, and passes on what they saw."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from redline.monitor.late_reader import LateReader
from redline.monitor.reading import Reading
from redline.monitor.tap import Step, Tap

Tell = Callable[[int, dict[str, float], dict[str, np.ndarray]], None]


class Tapping:
    """Reads each tap every ``every`` steps, or every so many as the tap says: one transfer from the device
    for all of them. ``tell`` gets a step's number, its metrics and its arrays, by name, one step late.
    """

    def __init__(self, taps: Mapping[str, Tap], every: int, tell: Tell) -> None:
        self.taps, self.every, self.tell = dict(taps), every, tell
        self._due: list[Tap] = []  # of the step in flight
        self._step: Step | None = None
        self._reading: Reading | None = None
        self._reader = LateReader()

    def attach(self, model: nn.Module) -> None:
        for tap in self.taps.values():
            tap.attach(model)  # type: ignore[arg-type]  # which of a model a tap needs is its own

    def begin(self, step: Step) -> None:
        """Before the forward of a step; of its micro-batches' the last one: its gradients are the step's."""
        self._due = [tap for tap in self.taps.values() if step.number % (tap.every or self.every) == 0]
        self._step = step
        for tap in self._due:
            tap.active = True

    @property
    def reading(self) -> bool:
        """Whether any tap reads the step in flight."""
        return bool(self._due)

    @torch.no_grad()
    def before_update(self) -> None:
        for tap in self._due:
            assert self._step is not None
            tap.before_update(self._step)

    @torch.no_grad()
    def end(self) -> None:
        self.deliver()
        if self._due:
            assert self._step is not None
            for tap in self._due:
                tap.after_update(self._step)
                tap.active = False
            self._reading = Reading(self._due)
            self._reader.push(self._step.number, self._reading.tensors)
            self._due = []

    def deliver(self) -> None:
        """Pass on what waits."""
        ready = self._reader.flush()
        if ready is not None:
            assert self._reading is not None
            step, numbers = ready
            self.tell(step, *self._reading.unpack(numbers))
