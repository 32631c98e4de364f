"""The callback that looks at every step: logs it, reports it, and ends a run that diverged."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from redline.monitor.late_reader import LateReader
from redline.stability import Forecast, OnlineRule, Verdict
from redline.training.module import LanguageModel


@dataclass(frozen=True)
class Progress:
    """Where a run is. Loss in nats per token."""

    step: int
    max_steps: int
    loss: float
    page: str | None  # of its curves, once it is known
    forecast_step: int | None = None  # since which the run is expected to diverge


class Watch(Callback):
    """Holds every step against the online rules. A step is judged once its numbers are on the host,
    one step late; the verdict names the step they belong to.
    """

    def __init__(
        self,
        rules: dict[str, OnlineRule],
        page: Callable[[], str | None],
        report: Callable[[Progress], None],
    ) -> None:
        self.rules = rules
        self.page = page
        self.report = report
        self.reader = LateReader()
        self.verdict: Verdict | None = None
        self.initial_loss = float("nan")
        self.last_loss = float("nan")
        self.steps_seen = 0
        self.forecast_step: int | None = None
        self.ends_by_forecast = False
        self._trainer: L.Trainer | None = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._trainer = trainer
        trainer.should_stop = self.verdict is not None

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, module: LanguageModel, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._judge(trainer, self.reader.push(trainer.global_step - 1, [module.loss, module.grad_norm]))

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._judge(trainer, self.reader.flush())

    def warn(self, forecast: Forecast, end: bool) -> None:
        """Report from now on that the run is expected to diverge. With ``end`` it ends by this verdict, once
        the forecast's step is judged and unless a rule broke by then.
        """
        self.forecast_step, self.ends_by_forecast = forecast.step, end

    def final_verdict(self) -> Verdict | None:
        """Once a run has ended: the rule it broke on its way or at its end."""
        broken = [reason for reason, rule in self.rules.items() if rule.broken_at_end()]
        return self.verdict or (Verdict(broken[0], self.steps_seen - 1) if broken else None)

    def _judge(self, trainer: L.Trainer, ready: tuple[int, list[float]] | None) -> None:
        if ready is None or self.verdict is not None:
            return
        step, (loss, grad_norm) = ready
        if step == 0:
            self.initial_loss = loss
        self.last_loss, self.steps_seen = loss, step + 1
        for logger in trainer.loggers:
            logger.log_metrics({"train/loss": loss, "train/grad_norm": grad_norm}, step)
        self.report(Progress(step + 1, trainer.max_steps, loss, self.page(), self.forecast_step))
        broken = (reason for reason, rule in self.rules.items() if rule.broken_by(step, loss, grad_norm))
        if reason := next(broken, None):
            self.verdict = Verdict(reason, step)
        elif self.ends_by_forecast and self.forecast_step is not None and self.forecast_step <= step:
            self.verdict = Verdict("forecast", self.forecast_step)
        trainer.should_stop = self.verdict is not None

    def state_dict(self) -> dict[str, Any]:
        # A checkpoint holds the step just taken, so its numbers must be judged by now.
        if self._trainer is not None:
            self._judge(self._trainer, self.reader.flush())
        return {
            "initial_loss": self.initial_loss,
            "last_loss": self.last_loss,
            "steps_seen": self.steps_seen,
            "forecast_step": self.forecast_step,
            "verdict": self.verdict and asdict(self.verdict),
            "rules": {reason: rule.state_dict() for reason, rule in self.rules.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.initial_loss, self.last_loss = state["initial_loss"], state["last_loss"]
        self.steps_seen, self.forecast_step = state["steps_seen"], state.get("forecast_step")
        self.verdict = state["verdict"] and Verdict(**state["verdict"])
        for reason, rule_state in state["rules"].items():
            if reason in self.rules:
                self.rules[reason].load_state_dict(rule_state)
