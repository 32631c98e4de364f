"""How a model knows the order of its tokens."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Rope(nn.Module):
    """Rotary position embedding (Su et al. 2021) of q and k; adds nothing to the residual stream."""

    cos_TK: Tensor
    sin_TK: Tensor

    def __init__(self, sequence_length: int, width: int, num_heads: int, base: float) -> None:
        super().__init__()
        half = width // num_heads // 2
        frequency_K = base ** (-torch.arange(half, dtype=torch.float64) / half)
        angle_TK = torch.outer(torch.arange(sequence_length, dtype=torch.float64), frequency_K).repeat(1, 2)
        sign_K = torch.ones(2 * half, dtype=torch.float64)
        sign_K[:half] = -1.0
        self.register_buffer("cos_TK", angle_TK.cos().float(), persistent=False)
        self.register_buffer("sin_TK", (angle_TK.sin() * sign_K).float(), persistent=False)

    def embed(self, x_BTD: Tensor) -> Tensor:
        return x_BTD

    def rotate(self, x_BHTK: Tensor) -> Tensor:
        length, half = x_BHTK.shape[-2], x_BHTK.shape[-1] // 2
        rotated_BHTK = x_BHTK * self.cos_TK[:length] + x_BHTK.roll(half, -1) * self.sin_TK[:length]
        return rotated_BHTK.to(x_BHTK.dtype)


class Learned(nn.Module):
    """A learned vector per position, added to the token embedding (GPT-2)."""

    def __init__(self, sequence_length: int, width: int, num_heads: int, base: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sequence_length, width)

    def embed(self, x_BTD: Tensor) -> Tensor:
        return x_BTD + self.embedding.weight[: x_BTD.shape[1]]

    def rotate(self, x_BHTK: Tensor) -> Tensor:
        return x_BHTK


POSITIONS: dict[str, Callable[[int, int, int, float], Rope | Learned]] = {"rope": Rope, "learned": Learned}
