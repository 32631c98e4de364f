"""A callback for the Trainer of Hugging Face's `transformers`."""

from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from redline.errors import UserError
from redline.watching import watch
from redline.watching.watched import Watched


class RedlineCallback(TrainerCallback):
    """Watches what the Trainer trains: see `redline.watch`, whose other arguments are ``options``.

    ``stop``: whether a run that has diverged is ended. The loss is that which the model itself returns, as it
    does for batches with labels.
    """

    def __init__(self, *, stop: bool = True, **options: Any) -> None:
        self.stop, self.options = stop, options
        self.watched: Watched | None = None
        self._losses: list[Tensor] = []
        self._summed = False  # each is already divided by what the whole step predicts

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        known = {"max_steps": state.max_steps, "warmup_steps": args.get_warmup_steps(state.max_steps)}
        self.watched = watch(model, optimizer, **{**known, **self.options})
        self._handle = model.register_forward_hook(self._see, with_kwargs=True)

    def _see(self, model: Any, inputs: Any, named: dict[str, Any], output: Any) -> None:
        loss = output.get("loss") if hasattr(output, "get") else None
        if model.training and loss is not None:
            self._losses.append(loss.detach())
            self._summed = named.get("num_items_in_batch") is not None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.watched is not None
        if not self._losses:
            raise UserError("RedlineCallback: the model returns no loss; allowed: batches with labels")
        total = sum(self._losses[1:], self._losses[0])
        loss = total if self._summed else total / len(self._losses)
        self._losses = []
        if self.watched.step(loss) and self.stop:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.watched is not None
        self._handle.remove()
        self.watched.close()
