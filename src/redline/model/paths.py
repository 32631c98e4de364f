"""Which way of computing attention is faster, by what a device does best."""

import torch


def explicit_is_faster(device: str, dtype: torch.dtype, tokens: int) -> bool:
    """True where the explicit path beats the fused kernel over forward and backward.

    ======  =====  ========  ==============================================================
    device  dtype  explicit  why
    ======  =====  ========  ==============================================================
    CPU     bf16   T <= 256  the fused backward is slow in bf16 (half of a step of `mini`)
    CPU     fp32   never     the fused kernel holds its scores in cache
    others  any    never     flash attention
    ======  =====  ========  ==============================================================

    ``bench/attention_paths.py`` compares this with the CPU it runs on.
    """
    return device == "cpu" and dtype == torch.bfloat16 and tokens <= 256
