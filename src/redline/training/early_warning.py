"""Feeds the forecaster with what the monitor reads, and passes its warning on."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from redline.metrics import MAX_LOGIT, NORM, layer_of
from redline.model import MappedModel
from redline.monitor import Monitor
from redline.search import Trial
from redline.stability import Forecaster, Verdict, build_forecaster

_INTO_RESIDUAL = ((NORM, "proj"), (NORM, "fc2"))

log = logging.getLogger(__name__)


class EarlyWarning(Callback):
    """Calls ``warn`` with the run's forecast, once; a resumed run is not warned of again."""

    width: int | None = None  # of the residual stream

    def __init__(self, forecaster: Forecaster, monitor: Monitor, warn: Callable[[Verdict], None]) -> None:
        self.forecaster, self.warn = forecaster, warn
        monitor.subscribe(self.read)

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module.model, MappedModel)
        self.width = module.model.site_map.width

    def read(self, step: int, values: Mapping[str, float]) -> None:
        forecast = self.forecaster.read(step, readings(values, self.width))
        if forecast is not None:
            self.warn(forecast)

    def state_dict(self) -> dict[str, Any]:
        return self.forecaster.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.forecaster.load_state_dict(state_dict)


def readings(values: Mapping[str, float], width: int | None) -> dict[str, float]:
    """What a forecaster reads, of the metrics of a step. ``width``: of the residual stream, if there
    is one.
    """
    found = {}
    if MAX_LOGIT in values:
        found["max_logit"] = values[MAX_LOGIT]
    places = {name: layer_of(name) for name in values}
    norms = [values[name] for name, place in places.items() if place and place[:2] in _INTO_RESIDUAL]
    if norms and width is not None:
        # max() of a list with a NaN depends on its order.
        finite = all(map(math.isfinite, norms))
        rms = max(norms) / math.sqrt(width) if finite else math.inf
        found["output_gain"] = rms / width**2
    return found


def early_warning(
    cfg: DictConfig, monitor: Monitor, trial: Trial, set_tags: Callable[[dict[str, Any]], None]
) -> list[Callback]:
    """The callback that `divergence.forecast` asks for; none where that is off."""
    mode, forecaster = build_forecaster(cfg.divergence)
    if forecaster is None:
        return []

    def warn(forecast: Verdict) -> None:
        log.warning("step %d: expected to diverge: %s", forecast.step, forecast.reason)
        set_tags({"forecast_step": forecast.step, "forecast_reason": forecast.reason})
        trial.watch.warn(forecast.step, "forecast" if mode == "end" else None)

    return [EarlyWarning(forecaster, monitor, warn)]
