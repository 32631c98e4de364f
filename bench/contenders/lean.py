"""The maths of our ``baseline``, written by hand in as little PyTorch as it takes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _harness import Cell, Pace
from contenders.bare_loop import train_bare


def rotate(x_BHTK: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """Rotary positions; R is half of K."""
    a_BHTR, b_BHTR = x_BHTK.chunk(2, -1)
    return torch.cat([a_BHTR * cos_TR - b_BHTR * sin_TR, b_BHTR * cos_TR + a_BHTR * sin_TR], -1)


class Block(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.fc1 = nn.Linear(width, 4 * width, bias=False)
        self.fc2 = nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTD: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        qkv_BTD = self.qkv(self.norm1(x_BTD)).split(D, -1)
        q, k, v = (part_BTD.view(B, T, self.num_heads, -1).transpose(1, 2) for part_BTD in qkv_BTD)
        cos_TR, sin_TR = cos_TR.to(q.dtype), sin_TR.to(q.dtype)
        q, k = rotate(q, cos_TR, sin_TR), rotate(k, cos_TR, sin_TR)
        y_BHTK = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.proj(y_BHTK.transpose(1, 2).reshape(B, T, D))
        return x_BTD + self.fc2(F.gelu(self.fc1(self.norm2(x_BTD))))


class GPT(nn.Module):
    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.embedding = nn.Embedding(cell.vocab_size, cell.width)
        self.blocks = nn.ModuleList(Block(cell.width, cell.num_heads) for _ in range(cell.num_layers))
        self.norm = nn.LayerNorm(cell.width, bias=False)
        self.head = nn.Linear(cell.width, cell.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                into_residual = "proj" in name or "fc2" in name
                std = 0.02 / math.sqrt(2 * cell.num_layers) if into_residual else 0.02
                nn.init.normal_(parameter, std=std)
        half = cell.width // cell.num_heads // 2
        frequency_R = 10_000.0 ** (-torch.arange(half) / half)
        angle_TR = torch.outer(torch.arange(cell.sequence_length), frequency_R)
        self.register_buffer("cos_TR", angle_TR.cos())
        self.register_buffer("sin_TR", angle_TR.sin())

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, self.cos_TR, self.sin_TR)
        return self.head(self.norm(x_BTD))


def train(cell: Cell, pace: Pace) -> None:
    train_bare(GPT(cell), cell, pace)
