"""Which number format a run computes in."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.plugins import MixedPrecision, Precision
from torch import Tensor, nn
from torch.nn.utils import parametrize

from redline.errors import UserError
from redline.model import MappedModel

_FP8_MULTIPLE = 16  # of a matrix's sides, as the hardware multiplies them
_FP8_CAPABILITY = (8, 9)  # of CUDA: Ada and Hopper


def has_bf16(device: torch.device) -> bool:
    """True where the device has instructions for bf16, not only an emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "mps" or _cpu_has("bf16", device)


def _has_fp16(device: torch.device) -> bool:
    return device.type == "cuda" or _cpu_has("fp16", device)


def _has_fp8(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FP8_CAPABILITY


def _cpu_has(dtype: str, device: torch.device) -> bool:
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(able for name, able in capabilities.items() if name.endswith(dtype))


def check_precision(asked: str, device: torch.device, allow_emulated: bool) -> None:
    """Raise UserError where the device has no instructions for ``asked``, or a package is missing."""
    dtype = asked.partition("-")[0]
    able = {"bf16": has_bf16, "fp16": _has_fp16, "fp8": _has_fp8}.get(dtype)
    if able is not None and not allow_emulated and not able(device):
        raise UserError(
            f"trainer.precision={asked}: this {device.type} has no {dtype} instructions; "
            "allowed: fp32, auto, or trainer.allow_emulated=true (very slow)"
        )
    if asked == "fp8" and find_spec("torchao") is None:
        raise UserError(
            "trainer.precision=fp8: needs the package torchao, which is not installed; "
            "install it with pip install 'redline[fp8]'"
        )


def fastest_precision(model: MappedModel, device: torch.device, batch_size: int, sequence_length: int) -> str:
    """``fp32`` or ``bf16-mixed``, for a model on a device.

    Without bf16 instructions the answer is fp32, on an accelerator that has them bf16. On a CPU it
    depends on the model's size, so a few steps of each are timed; bf16 must win by a tenth, so that
    the answer does not depend on noise.
    """
    if not has_bf16(device):
        return "fp32"
    if device.type != "cpu":
        return "bf16-mixed"
    tokens_BT = torch.zeros(batch_size, sequence_length, dtype=torch.int64)

    def seconds(bf16: bool) -> float:
        times = []
        for _ in range(4):
            start = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                logits_BTV = model(tokens_BT)
                loss = F.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT.flatten())
            loss.backward()
            times.append(time.perf_counter() - start)
        model.zero_grad(set_to_none=True)
        return min(times)

    return "bf16-mixed" if 1.1 * seconds(bf16=True) < seconds(bf16=False) else "fp32"


def precision_plugin(precision: str, device: torch.device) -> Precision:
    """How Lightning computes in ``precision``, which is not ``auto``."""
    if precision == "bf16-true":
        return Bf16Weights()
    if precision == "fp16-mixed":
        return Fp16Precision(device.type)
    if precision in ("bf16-mixed", "fp8"):  # what is not in fp8 is in bf16
        return MixedPrecision("bf16-mixed", device.type)
    assert precision == "fp32"
    return Precision()


class Bf16Weights(Precision):
    """The transformer in bf16, weights and all. Lightning's own plugin would also take the mean of the
    validation loss in bf16, which stands still after a few hundred tokens.
    """

    precision = "bf16-true"

    def convert_module(self, module: nn.Module) -> nn.Module:
        module.get_submodule("model").to(torch.bfloat16)
        return module


class LossScaler(torch.amp.GradScaler):
    """Multiplies the loss so that small gradients are not zero in fp16, skips a step whose gradients overflow
    and halves the scale. It keeps on the device what the last step was, so that nobody waits for it.
    """

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.skips = torch.zeros(())  # so many steps so far
        self.skipped = torch.zeros(())  # 1 where the last step was
        self.scale_used = torch.ones(())  # by the last step

    def update(self, new_scale: float | Tensor | None = None) -> None:
        assert self._scale is not None
        self.scale_used = self._scale.clone()
        super().update(new_scale)
        self.skipped = (self._scale < self.scale_used).float()
        self.skips = self.skips.to(self.skipped.device) + self.skipped

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "skips": self.skips}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.skips = state_dict["skips"]


class Fp16Precision(MixedPrecision):
    """fp16 with fp32 weights and a loss scaler, on any device. Gradients are unscaled before they are looked
    at; Lightning's own plugin leaves that to fused optimizers, and can then not clip.
    """

    scaler: LossScaler

    def __init__(self, device: str) -> None:
        super().__init__("16-mixed", device, LossScaler(device))

    def optimizer_step(  # type: ignore[override]
        self, optimizer: Any, model: Any, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        closure()
        self.scaler.unscale_(optimizer)
        self._after_closure(model, optimizer)
        result = self.scaler.step(optimizer, **kwargs)
        self.scaler.update()
        return result


def check_fp8(model: MappedModel) -> None:
    """Raise UserError where a linear of the blocks cannot compute in fp8."""
    for name, linear in _linears(model).items():
        if parametrize.is_parametrized(linear):
            raise UserError(
                f"trainer.precision=fp8: norm_strategy.linear makes the weight of {name} anew; "
                "allowed: another precision, or norm_strategy.linear=null"
            )
        if linear.in_features % _FP8_MULTIPLE or linear.out_features % _FP8_MULTIPLE:
            raise UserError(
                f"trainer.precision=fp8: {name} has {linear.in_features} inputs and {linear.out_features} "
                f"outputs; allowed: a model.width that makes both multiples of {_FP8_MULTIPLE}"
            )


def to_fp8(model: MappedModel, device: torch.device) -> None:
    """Have the linears of the blocks multiply in fp8, with one scale a tensor that follows its largest number
    (Micikevicius et al. 2022, arXiv 2209.05433). Weights stay as they are; head and embedding stay in bf16.

    On a device without such instructions the products are emulated.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    chosen = _linears(model)
    convert_to_float8_training(
        model,
        config=Float8LinearConfig(pad_inner_dim=True, emulate=not _has_fp8(device)),
        module_filter_fn=lambda module, name: name in chosen,
    )
    for linear in _linears(model).values():
        # Autocast would make bf16 of what is in fp8 already.
        linear.register_forward_pre_hook(lambda _, inputs: inputs[0].to(torch.bfloat16))
        linear.forward = torch.autocast(device.type, enabled=False)(linear.forward)  # type: ignore[method-assign]


def _linears(model: MappedModel) -> dict[str, nn.Linear]:
    inside = {id(its) for layer in model.site_map.layers for its in layer.block.modules()}
    return {
        name: its for name, its in model.named_modules() if id(its) in inside and isinstance(its, nn.Linear)
    }
