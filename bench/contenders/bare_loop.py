"""The loop that is written by hand around a bare model: no logging, no hooks, no framework."""

import torch
import torch.nn.functional as F
from torch import nn

from _harness import Cell, Pace


def train_bare(model: nn.Module, cell: Cell, pace: Pace) -> None:
    """Train ``model``, tokens (B,T) to logits (B,T,V), on random windows of random tokens."""
    tokens_N = torch.randint(cell.vocab_size, (1_000_000,))
    offset_S = torch.arange(cell.sequence_length + 1)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    model.train()
    while True:
        start_B = torch.randint(len(tokens_N) - cell.sequence_length, (cell.batch_size, 1))
        tokens_BS = tokens_N[start_B + offset_S]
        with torch.autocast("cpu", torch.bfloat16, enabled=cell.precision == "bf16"):
            logits_BTV = model(tokens_BS[:, :-1])
            loss = F.cross_entropy(logits_BTV.flatten(0, 1), tokens_BS[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        pace.step_done()
