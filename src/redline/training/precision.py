"""Which number format a run computes in."""

import time

import torch
import torch.nn.functional as F

from redline.errors import UserError
from redline.model import Transformer

LIGHTNING_NAMES = {"fp32": "32-true", "bf16": "bf16-mixed"}


def has_bf16(device: torch.device) -> bool:
    """True where the device has instructions for bf16, not only an emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(able for name, able in capabilities.items() if name.endswith("bf16"))
    return device.type == "mps"


def check_precision(asked: str, device: torch.device, allow_emulated: bool) -> None:
    """Raise UserError where ``asked`` is bf16 and the device has none."""
    if asked == "bf16" and not allow_emulated and not has_bf16(device):
        raise UserError(
            f"trainer.precision=bf16: this {device.type} has no bf16 instructions; "
            "allowed: fp32, auto, or trainer.allow_emulated_bf16=true (very slow)"
        )


def fastest_precision(model: Transformer, device: torch.device, batch_size: int, sequence_length: int) -> str:
    """``fp32`` or ``bf16``, for a model on a device.

    Without bf16 instructions the answer is fp32, on an accelerator that has them bf16. On a CPU it
    depends on the model's size, so a few steps of each are timed; bf16 must win by a tenth, so that
    the answer does not depend on noise.
    """
    if not has_bf16(device):
        return "fp32"
    if device.type != "cpu":
        return "bf16"
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

    return "bf16" if 1.1 * seconds(bf16=True) < seconds(bf16=False) else "fp32"
