"""A loop with `accelerate`, watched. The watch puts the micro-batches of a step together."""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import redline

torch.manual_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
x = torch.randn(1024, 8)
data = DataLoader(TensorDataset(x, x.sum(-1, keepdim=True).sin()), batch_size=32, shuffle=True)
net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
net, optimizer, data = accelerator.prepare(net, optimizer, data)

with redline.watch(net, optimizer, name="accelerate") as watched:
    for x, y in data:
        with accelerator.accumulate(net):
            loss = (net(x) - y).square().mean()
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        if watched.step(loss):
            break

print(f"loss {loss.item():.3f}, diverged: {watched.diverged}")
