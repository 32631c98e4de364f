"""The LightningModule: the loss and its terms, what is done to their gradients, perplexity."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from redline import metrics, over_ranks
from redline.errors import UserError
from redline.model import Layer, Linear, MappedModel, named_parameters
from redline.training.gradients import GradientSteps
from redline.training.losses import Prediction, Term, total
from redline.training.optimizers import MakeOptimizer
from redline.training.optimizers.joined import switch_mode
from redline.training.strategies import FullyShard


class LanguageModel(L.LightningModule):
    """Trains a transformer on batches of tokens (B, T+1): T inputs, T targets.

    After a step ``loss`` (plain cross entropy, nats per token), ``addends`` (by name, the terms of the
    training loss where there are several), both the means over its micro-batches and over ranks, and
    ``grad_norm`` (global L2 norm before anything is done to the gradients) are scalars on the device, for
    callbacks to read without a second pass. So is ``clipped_heads``: of so many heads the site `qk_weight`
    has changed the weights; None where nothing acts there.
    """

    loss: Tensor
    addends: Mapping[str, Tensor]
    grad_norm: Tensor
    clipped_heads: Tensor | None = None

    def __init__(
        self,
        model: MappedModel,
        *,
        lr: float,
        terms: Mapping[str, Term],
        optimizer: MakeOptimizer,
        schedule: Callable[[int], float],
        gradient: GradientSteps,
        accumulate: int = 1,
    ) -> None:
        """``accumulate``: micro-batches of an optimizer step, as the trainer has it."""
        super().__init__()
        self.model = model
        self.weights = dict(model.named_parameters())  # walking the modules costs as much as clipping
        self.lr = lr
        self.terms = terms
        for term in terms.values():
            term.attach(model)
        self.losses = losses  # or the same compiled
        self.clips = _clips(model)
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.gradient = gradient
        self.accumulate = accumulate
        self.val_loss = MeanMetric(nan_strategy="disable")  # a NaN is a result

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, FullyShard):
            self.trainer.strategy.shard(self.model)
            self.weights = dict(self.model.named_parameters())

    def on_train_start(self) -> None:
        switch_mode(self.trainer.optimizers, "train")

    def on_fit_end(self) -> None:
        # What is validated and saved after this is what the optimizer means as its result.
        switch_mode(self.trainer.optimizers, "eval")

    def training_step(self, tokens_BS: Tensor, batch_idx: int) -> Tensor:
        loss, addends = self.losses(self.model, self.terms, tokens_BS)
        several = {name: its.detach() for name, its in addends.items()} if len(addends) > 1 else {}
        parts, is_first = self.accumulate, batch_idx % self.accumulate == 0
        self.loss = loss.detach() / parts + (0.0 if is_first else self.loss)
        self.addends = {
            name: its / parts + (0.0 if is_first else self.addends[name]) for name, its in several.items()
        }
        return total(addends)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        # Once a step, before anyone judges it: of each rank's share of the batch it is the mean.
        self.loss, *addends = over_ranks.means([self.loss, *self.addends.values()])
        self.addends = dict(zip(self.addends, addends, strict=True))
        # Here and not by the Trainer's flag: that one refuses a fused optimizer under mixed precision.
        self.grad_norm = self.gradient(self.weights, self.loss)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gradient"] = self.gradient.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.gradient.load_state_dict(checkpoint["gradient"])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.clips:
            self.clipped_heads = torch.stack([self._clip(its) for its in self.clips]).sum()

    def _clip(self, layer: Layer) -> Tensor:
        # A step that was skipped has left the weight as it was: for want of gradients, or, by a loss scaler,
        # because they overflowed.
        weight = layer.output(Linear.qkv).linears[0].get_parameter("weight")
        updated = self.grad_norm.isfinite() & (weight.grad is not None)
        clip: Any = layer.qk_weight
        clipped: Tensor = clip.after_step(layer.key_heads, layer.scale_heads, updated)
        return clipped

    def validation_step(self, tokens_BS: Tensor, batch_idx: int) -> None:
        # Token by token: with NaN let through, the metric takes no weights.
        self.val_loss.update(_cross_entropy(self.model(tokens_BS[:, :-1]), tokens_BS[:, 1:], "none"))

    def on_validation_epoch_end(self) -> None:
        loss = self.val_loss.compute()
        self.val_loss.reset()
        # exp of the mean loss over all tokens, not the mean of the batches' perplexities.
        self.log_dict({metrics.VAL_LOSS: loss, metrics.VAL_PERPLEXITY: torch.exp(loss)})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(named_parameters(self.model), self.lr)
        scheduler = LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def losses(
    model: MappedModel, terms: Mapping[str, Term], tokens_BS: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Plain cross entropy, and the terms of the training loss by name: scalars, all that `torch.compile` sees
    of a step.
    """
    logits_BTV, targets_BT = model(tokens_BS[:, :-1]), tokens_BS[:, 1:]
    loss = _cross_entropy(logits_BTV, targets_BT, "mean")
    prediction = Prediction(model, logits_BTV, targets_BT, loss)
    return loss, {name: term(prediction) for name, term in terms.items()}


def _clips(model: MappedModel) -> list[Layer]:
    """The layers where the site `qk_weight` acts after a step. Raises UserError."""
    clips = [its for its in model.site_map.layers if hasattr(its.qk_weight, "after_step")]
    for layer in clips:
        if any(parametrize.is_parametrized(its) for its in layer.output(Linear.qkv).linears):
            raise UserError(
                f"norm_strategy.qk_weight: {type(layer.qk_weight).__name__} cannot act on a weight that "
                "norm_strategy.linear makes anew; allowed: null at one of the two"
            )
    return clips


def _cross_entropy(logits_BTV: Tensor, targets_BT: Tensor, reduction: str) -> Tensor:
    # In fp32: with weights in bf16 the logits are in bf16, and so would be the loss.
    return F.cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.flatten(), reduction=reduction)
