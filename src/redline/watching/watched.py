"""A loop under watch: its taps, its rules, its run in MLflow."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer

from redline import metrics, over_ranks
from redline.api import divergence_rules
from redline.bounds import Count, Steps, check_value
from redline.config import shipped
from redline.errors import UserError
from redline.model import SiteMap
from redline.monitor import Step
from redline.monitor.from_config import build_taps
from redline.monitor.late_reader import LateReader
from redline.monitor.tapping import Tapping
from redline.stability import Forecaster, Score, Watch, build_forecaster, build_rules
from redline.training.early_warning import readings
from redline.training.outbox import drain
from redline.training.trackers import TrackedRun, Trackers, build_trackers, new_run_key

_ANY = ("linear_norm", "learning_rate", "memory")
_MAPPED = ("output_norm", "residual", "max_logit", "learning_rate", "memory")

log = logging.getLogger(__name__)


class Watched:
    """What `redline.watch` gives. ``close`` it at the end, or use it as a context manager."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        watch: Watch,
        tapping: Callable[[Any], Tapping],
        warn: Callable[[int, Mapping[str, float]], str | None],
        trackers: Trackers,
        finish: Callable[[], str | None],
    ) -> None:
        """``warn``: from a reading to a warning. ``finish``: sends what waits and says what went wrong."""
        self.watch, self.trackers, self._warn, self._finish = watch, trackers, warn, finish
        self._optimizer = optimizer
        self._parameters = [its for group in optimizer.param_groups for its in group["params"]]
        self._hook = optimizer.register_step_pre_hook(self._before_update)
        self._reader, self._steps = LateReader(), 0
        self._losses: list[Tensor] = []  # of the step's micro-batches
        self._grad_norm: Tensor | None = None  # None: the optimizer has not been called since the last step
        self._closed = False
        self._tapping = tapping(self._tell)
        self._tapping.attach(model)
        self._begin()

    @property
    def diverged(self) -> bool:
        """Whether a rule is broken, as far as steps have been read."""
        return self.watch.verdict is not None

    def step(self, loss: Tensor | float) -> bool:
        """Hand in the loss of a step that the optimizer has taken. True where the run has diverged, which is
        known one step late: reading does not wait for the device. A loss before the optimizer's step is that
        of a micro-batch.
        """
        self._losses.append(torch.as_tensor(loss).detach().float())
        if self._grad_norm is None:
            return self.diverged
        mean = torch.stack(self._losses).mean()
        # Of several ranks each judges the mean: all stop at the same step.
        scalars = over_ranks.means([mean, self._grad_norm.to(mean.device)])
        self._judge(self._reader.push(self._steps, scalars))
        self._tapping.end()
        self._steps += 1
        self._losses, self._grad_norm = [], None
        self._begin()
        return self.diverged

    def close(self, status: str = "FINISHED") -> None:
        """Read the last step and end the run in MLflow. ``status``: FINISHED, FAILED or KILLED."""
        if self._closed:
            return
        self._closed = True
        self._hook.remove()
        self._judge(self._reader.flush())
        self._tapping.deliver()
        for tap in self._tapping.taps.values():
            tap.active = False
        ended = self.watch.outcome(0.0, 0, Score(None), self._steps)
        verdict = "diverged" if ended.diverged else "stable"
        tags = {"verdict": verdict, "reason": ended.reason or ""}
        self.trackers.set_tags({**tags, "step": str(ended.step), "spikes": str(ended.spikes)})
        self.trackers.end(status)
        if (line := self._finish()) is not None:
            log.warning(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        killed = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.close("FINISHED" if kind is None else "KILLED" if killed else "FAILED")

    def _begin(self) -> None:
        self._tapping.begin(Step(self._steps, 0, self._optimizer))

    def _before_update(self, *_: Any) -> None:
        gradients = [its.grad for its in self._parameters if its.grad is not None]
        self._grad_norm = torch.nn.utils.get_total_norm(gradients)
        self._tapping.before_update()

    def _judge(self, ready: tuple[int, list[float]] | None) -> None:
        if ready is None:
            return
        step, (loss, grad_norm) = ready
        self.trackers.log_metrics({metrics.TRAIN_LOSS: loss, metrics.GRAD_NORM: grad_norm}, step)
        before = self.watch.verdict
        self.watch.report(step, loss, grad_norm)
        if before is None and (verdict := self.watch.verdict) is not None:
            log.warning("step %d: diverged by %s", verdict.step, verdict.reason)

    def _tell(self, step: int, values: dict[str, float], arrays: dict[str, np.ndarray]) -> None:
        self.trackers.log_metrics(values, step)
        if (reason := self._warn(step, values)) is not None:
            log.warning("step %d: expected to diverge: %s", step, reason)
            self.watch.warn(step, None)
            self.trackers.set_tags({"forecast_step": str(step), "forecast_reason": reason})


def watched(
    model: nn.Module,
    optimizer: Optimizer,
    name: str,
    max_steps: int | None,
    warmup_steps: int,
    every: int,
    divergence: Mapping[str, Any],
    forecast: str,
    home: Path,
    loggers: Sequence[Any] | None,
) -> Watched:
    """See `redline.watch`."""
    for key, value, kind in (
        ("name", name, str),
        ("max_steps", max_steps, Count | None),
        ("warmup_steps", warmup_steps, Steps),
        ("every", every, Count),
    ):
        check_value(key, value, kind)
    optimizer = _check(model, optimizer)
    rules = divergence_rules(divergence, max_steps)
    if rules.get("blow_up") is not None and "warmup_steps" not in (divergence.get("blow_up") or {}):
        rules["blow_up"]["warmup_steps"] = warmup_steps
    watch = Watch(build_rules(rules, object))
    tracker = _tracker(home)
    run = TrackedRun(new_run_key(), name, name, {})
    chosen = tracker if loggers is None and over_ranks.is_first() else {}
    trackers = build_trackers(OmegaConf.create(chosen), run) if loggers is None else Trackers(loggers)
    return Watched(
        model,
        optimizer,
        watch,
        lambda tell: Tapping(_taps(model), every, tell),
        _warning(model, warmup_steps, forecast),
        trackers,
        lambda: drain(chosen),
    )


def _check(model: Any, optimizer: Any) -> Optimizer:
    """The optimizer itself, where that of `accelerate` wraps it."""
    if not isinstance(model, nn.Module):
        raise UserError(f"model={model!r:.60}: allowed: a torch.nn.Module")
    if hasattr(model, "_orig_mod"):
        raise UserError("model: is compiled, and shows its parts no more; allowed: watch it, then compile it")
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    if not isinstance(optimizer, Optimizer):
        raise UserError(f"optimizer={optimizer!r:.60}: allowed: a torch.optim.Optimizer")
    return optimizer


def _taps(model: nn.Module) -> dict[str, Any]:
    taps: dict[str, Any] = {}
    for name in _MAPPED if hasattr(model, "site_map") else _ANY:
        spec: Any = OmegaConf.to_container(shipped(f"monitor/taps/{name}"))
        taps |= {key: {**its, "every": None} for key, its in spec.items()}
    return build_taps(taps)


def _tracker(home: Path) -> dict[str, Any]:
    """The group `tracker` of a configuration whose stores are in ``home``."""
    its: Any = OmegaConf.to_container(shipped("tracker/mlflow"))
    places = {"tracking_uri": f"sqlite:///{home / 'mlflow.db'}", "ui": shipped("train").search.mlflow_ui}
    places |= {"outbox": str(home / "outbox"), "artifact_location": str(home / "artifacts")}
    return {"mlflow": {**its, **places}}


def _warning(
    model: nn.Module, warmup_steps: int, mode: str
) -> Callable[[int, Mapping[str, float]], str | None]:
    """None for no warning. Without a site map nothing says which outputs go into the residual stream."""
    its: Any = OmegaConf.to_container(shipped("divergence/default"))
    spec = {**its["forecaster"], "warmup_steps": warmup_steps}
    _, forecaster = build_forecaster({"forecast": mode, "forecaster": spec})
    width = _width(model) if forecaster is not None else None

    def warn(step: int, values: Mapping[str, float]) -> str | None:
        if width is None:
            return None
        assert isinstance(forecaster, Forecaster)
        forecast = forecaster.read(step, readings(values, width))
        return None if forecast is None else forecast.reason

    return warn


def _width(model: nn.Module) -> int | None:
    """Of the residual stream, which Proj puts out."""
    site_map: SiteMap | None = getattr(model, "site_map", None)
    if site_map is None or "proj" not in site_map.layers[0].outputs:
        return None
    proj = site_map.layers[0].output("proj").linears[0]
    return proj.out_features if isinstance(proj, nn.Linear) else None
