"""A step's gradients, one thing that is done to them, and all that a run does, in order."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from redline import over_ranks


class Gradients:
    """Of one optimizer step, unscaled. ``loss`` (nats a token) and ``norm`` (global L2) stay what they were
    before any change.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], loss: Tensor) -> None:
        self.parameters = parameters
        self.loss = loss
        self.norm = global_norm(self._gradients)
        self.dropped = False
        self._norm_now: Tensor | None = self.norm

    @property
    def _gradients(self) -> list[Tensor]:
        return [its.grad for its in self.parameters.values() if its.grad is not None]

    @property
    def tensors(self) -> list[Tensor]:
        """One a parameter, in the parameters' order, to be changed in place; then call `changed`. Of sharded
        ones this rank's part.
        """
        return [over_ranks.shard(its) for its in self._gradients]

    @property
    def norms(self) -> Tensor:
        """(P,): the L2 norm of each now, in fp32."""
        return torch.stack(over_ranks.norms(self._gradients, torch.float32))

    @property
    def norm_now(self) -> Tensor:
        """The global L2 norm after the changes so far."""
        if self._norm_now is None:
            self._norm_now = global_norm(self._gradients)
        return self._norm_now

    def changed(self) -> None:
        self._norm_now = None

    def scale(self, factor: Tensor) -> None:
        """Multiply all of them by a scalar on their device."""
        torch._foreach_mul_(self.tensors, factor)
        self.changed()

    def drop(self) -> None:
        """Have the optimizer skip the step: torch's, and their like, leave out what has no gradient."""
        for parameter in self.parameters.values():
            parameter.grad = None
        self.dropped = True


def global_norm(gradients: list[Tensor]) -> Tensor:
    """The L2 norm of all of them together, in fp32 also where they are not."""
    if all(its.dtype == torch.float32 and not over_ranks.is_sharded(its) for its in gradients):
        return nn.utils.get_total_norm(gradients)
    return torch.linalg.vector_norm(torch.stack(over_ranks.norms(gradients, torch.float32)))


class GradientStep(ABC):
    """One change. Those named in ``kept`` are its running statistics: numbers, or tensors on the gradients'
    device. A step that resumes finds them as they were.
    """

    kept: ClassVar[tuple[str, ...]] = ()
    # Whether it can hide that training diverges. Such a step is off by default, and its changes are counted.
    hides_divergence: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, gradients: Gradients) -> Tensor | bool | None:
        """Of one that can hide divergence: whether it has changed this step's gradients, or dropped them.
        It makes nobody wait for the device (no ``.item()``), unless it drops.
        """


class GradientSteps:
    """All steps of a run, in order; after one that drops the gradients, none. ``counts``: by the name of each
    step that can hide divergence, how many optimizer steps it has changed.
    """

    def __init__(self, steps: Mapping[str, GradientStep]) -> None:
        self.steps = steps
        self.counts = {name: torch.zeros(()) for name, its in steps.items() if its.hides_divergence}
        self._device = torch.device("cpu")  # where counts and statistics are

    @torch.no_grad()
    def __call__(self, parameters: Mapping[str, nn.Parameter], loss: Tensor) -> Tensor:
        """Returns the global L2 norm before any of them."""
        gradients = Gradients(parameters, loss)
        if self._device != loss.device:
            self._device = loss.device
            self.load_state_dict(self.state_dict())
        for name, step in self.steps.items():
            changed = step(gradients)
            if name in self.counts and changed is not None:
                self.counts[name] += changed
            if gradients.dropped:
                break
        return gradients.norm

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        statistics = {name: {key: getattr(its, key) for key in its.kept} for name, its in self.steps.items()}
        return {"statistics": statistics, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, statistics in state["statistics"].items():
            for key, value in statistics.items():
                setattr(self.steps[name], key, self._here(value))
        self.counts = {name: self._here(count) for name, count in state["counts"].items()}

    def _here(self, value: Any) -> Any:
        return value.to(self._device, copy=True) if isinstance(value, Tensor) else value
