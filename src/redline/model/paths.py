"""Which way of computing attention is faster, by what a device does best."""

from functools import cache

import torch


@cache
def _cpu_capability() -> str:
    return torch.backends.cpu.get_cpu_capability()


def explicit_is_faster(device: str, dtype: torch.dtype, tokens: int) -> bool:
    """True where the explicit path beats the fused kernel over forward and backward.

    ==============  =====  ==========  ==================================================================
    device          dtype  explicit    why
    ==============  =====  ==========  ==================================================================
    CPU             bf16   T <= 256    the fused backward is slow in bf16 (half of a step of `mini`)
    CPU, AVX2 only  fp32   T <= 128    the fused kernel is written for 512-bit vectors
    CPU             fp32   never       the fused kernel holds its scores in cache
    others          any    never       flash attention
    ==============  =====  ==========  ==================================================================

    Measured by ``bench/attention_paths.py``.
    """
    if device != "cpu":
        return False
    if dtype == torch.bfloat16:
        return tokens <= 256
    return _cpu_capability() == "AVX2" and tokens <= 128
