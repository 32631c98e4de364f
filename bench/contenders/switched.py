"""The product's own run, in which every turn says what becomes of its monitor."""

from collections.abc import Sequence

import lightning as L
from torch import nn

from _harness import Cell, Pace
from contenders import ours

NEVER = 1_000_000_000  # steps


def train(cell: Cell, pace: Pace, overrides: Sequence[str] = ()) -> None:
    """Settings: ``off``, no monitor at all; ``idle``, one that does not read; ``read``, one that reads."""
    from redline.monitor import Monitor

    attach, step_done = Monitor.on_fit_start, pace.step_done

    def attach_and_hand_over(monitor: Monitor, trainer: L.Trainer, module: L.LightningModule) -> None:
        bare = _hooks(module)
        attach(monitor, trainer, module)
        tapped, callbacks = _hooks(module), trainer.callbacks
        without = [callback for callback in callbacks if callback is not monitor]

        def switch(setting: str) -> None:
            trainer.callbacks = without if setting == "off" else callbacks
            _hang(module, bare if setting == "off" else tapped)
            for tap in monitor.taps.values():
                tap.every = 1 if setting == "read" else NEVER

        def deliver_and_be_done() -> None:
            monitor.on_train_end()  # a reading would be delivered in the next step, which is another turn
            step_done()

        pace.switch = switch
        pace.step_done = deliver_and_be_done  # type: ignore[method-assign]

    Monitor.on_fit_start = attach_and_hand_over  # type: ignore[method-assign]
    ours.train(cell, pace, tracker="none", overrides=overrides)


Hooks = dict[str, tuple[dict, dict]]


def _hooks(module: nn.Module) -> Hooks:
    return {
        name: (dict(each._forward_pre_hooks), dict(each._forward_hooks))
        for name, each in module.named_modules()
    }


def _hang(module: nn.Module, hooks: Hooks) -> None:
    for name, each in module.named_modules():
        for now, then in zip((each._forward_pre_hooks, each._forward_hooks), hooks[name], strict=True):
            now.clear()
            now.update(then)
