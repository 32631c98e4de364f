"""What training a model needs: operations and memory, found without computing anything."""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from redline.model import MappedModel, named_parameters, recompute
from redline.training.build import build_model, build_terms, micro_batch_size
from redline.training.losses import total
from redline.training.module import losses
from redline.training.optimizers import optimizer_from

AUTOCAST = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16, "fp8": torch.bfloat16}


def flops_per_token(model: MappedModel, sequence_length: int) -> int:
    """Of training, by the usual count: 6 for each number of a matrix that tokens are multiplied by, and
    12 T D a layer for the products with keys and values, masked ones too (Chowdhery et al. 2022,
    arXiv 2204.02311, appendix B). What is computed again to save memory does not count.
    """
    matrices = [its for its in named_parameters(model) if its.role in ("hidden", "head")]
    numbers = sum(its.parameter.numel() for its in matrices)
    attention = sum(its.parameter.shape[0] for its in matrices if its.linear == "proj")
    return 6 * numbers + 12 * sequence_length * attention


@dataclass(frozen=True)
class Memory:
    """In bytes, of one device that trains the whole model. ``activations`` is the most at any time of all
    that a step makes but gradients, ``logits`` what numbers of the logits' shape are of that; ``peak``: the
    most of everything at once. ``block``: the weights of the largest block, ``rest``: those of no block.
    """

    weights: int
    gradients: int
    state: int  # of the optimizer
    activations: int
    logits: int
    peak: int
    block: int
    rest: int

    def sharded(self, devices: int) -> int:
        """What each of ``devices`` needs where it keeps its part of weights, gradients and state, and gathers
        the weights of two blocks at a time and of what is in no block, beside the gradients of one such.
        """
        parts = (self.weights + self.gradients + self.state) // devices
        return parts + self.activations + 3 * self.block + 2 * self.rest


def memory(cfg: DictConfig, precision: str, *, recomputed: bool) -> Memory:
    """Of the run of ``cfg`` in ``precision``, which is not ``auto``; ``recomputed``: its blocks in the
    backward pass. A step of model and optimizer is taken with tensors that have a shape and no numbers.

    What kernels use inside them, taps and the allocator's gaps do not count.
    """
    make_optimizer = optimizer_from(cfg.optimizer)
    with torch.device("meta"):
        model = build_model(cfg)
    blocks = [its.block for its in model.site_map.layers]
    for block in blocks if recomputed else ():
        recompute(block)
    with FakeTensorMode():
        _fake(model, torch.bfloat16 if precision == "bf16-true" else None)
        terms = build_terms(cfg)
        for term in terms.values():
            term.attach(model)
        batch, length = micro_batch_size(cfg), cfg.data.sequence_length
        tokens_BS = torch.zeros(batch, length + 1, dtype=torch.int64)
        head = model.site_map.head
        vocabulary = 0 if head is None else next(head.parameters()).shape[0]
        parameters = list(model.parameters())
        made = _Made(batch * length * vocabulary)
        made.hold(*parameters, *model.buffers())
        optimizer = make_optimizer(named_parameters(model), 1.0)
        with made:
            weights = made.live
            for parameter in parameters:
                parameter.grad = torch.empty_like(parameter)
            gradients = made.live - weights
            _step(optimizer)
            optimizer.zero_grad()
            state, stepping = made.live - weights, made.most
            made.begin()
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(made.keep_gradient)
            # Of several micro-batches the second finds gradients there.
            for _ in range(min(2, cfg.trainer.accumulate)):
                with torch.autocast("cpu", AUTOCAST.get(precision), enabled=precision in AUTOCAST):
                    _, addends = losses(model, terms, tokens_BS)
                    loss = total(addends)
                del addends
                loss.backward()
        largest = max(sum(its.nbytes for its in block.parameters()) for block in blocks)
        in_blocks = sum(its.nbytes for block in blocks for its in block.parameters())
    return Memory(
        weights=weights,
        gradients=gradients,
        state=state,
        activations=made.most_activations - weights - state,
        logits=made.logits_then,
        peak=max(made.most, stepping),
        block=largest,
        rest=sum(its.nbytes for its in parameters) - in_blocks,
    )


def _fake(model: nn.Module, dtype: torch.dtype | None) -> None:
    """From the meta device to a CPU without numbers; ``dtype``: of what is no whole number."""
    made: dict[int, Any] = {}

    def fake(its: Tensor) -> Any:
        if id(its) not in made:
            its_dtype = dtype if dtype is not None and its.is_floating_point() else its.dtype
            empty = torch.empty(its.shape, dtype=its_dtype, device="cpu")
            made[id(its)] = nn.Parameter(empty, its.requires_grad) if isinstance(its, nn.Parameter) else empty
        return made[id(its)]

    for module in model.modules():  # `Module.to` does not take such tensors
        for its in (module._parameters, module._buffers):
            its.update({name: fake(tensor) for name, tensor in its.items() if tensor is not None})


def _step(optimizer: Optimizer) -> None:
    try:
        optimizer.step()
    except DynamicOutputShapeException:  # of one that picks numbers by their size
        parameters = [its for group in optimizer.param_groups for its in group["params"]]
        optimizer.state.update(
            {its: {"means": [its.clone(), its.clone()]} for its in parameters}
        )  # as Adam's


class _Made(TorchDispatchMode):
    """Counts the bytes of all storages that are made within, for as long as they live."""

    def __init__(self, logits: int) -> None:
        """``logits``: how many numbers these are."""
        super().__init__()
        self.logits = logits
        self.live = self.live_logits = self.gradients = 0
        self.begin()
        self._sizes: dict[int, tuple[int, bool]] = {}
        self._gradients: set[int] = set()

    def begin(self) -> None:
        """Forget what was the most."""
        self.most = self.most_activations = self.logits_then = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1  # of an optimizer that looks at a number
        made = func(*args, **(kwargs or {}))
        self.hold(*(its for its in tree_leaves(made) if isinstance(its, Tensor)))
        return made

    def hold(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._sizes:
                continue
            size, is_logits = storage.nbytes(), tensor.numel() == self.logits
            self._sizes[key] = size, is_logits
            weakref.finalize(storage, self._free, key)
            self.live += size
            self.live_logits += is_logits * size
            self.most = max(self.most, self.live)
            if self.live - self.gradients > self.most_activations:
                self.most_activations, self.logits_then = self.live - self.gradients, self.live_logits

    def keep_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        storage = parameter.grad.untyped_storage()
        if storage._cdata not in self._gradients:
            self._gradients.add(storage._cdata)
            self.gradients += storage.nbytes()

    def _free(self, key: int) -> None:
        size, is_logits = self._sizes.pop(key)
        self.live -= size
        self.live_logits -= is_logits * size
