"""A training loop of one's own, watched: two lines are Redline's."""

import torch
from torch import nn

import redline

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
watched = redline.watch(net, optimizer, name="bare", max_steps=200)

for _ in range(200):
    x = torch.randn(64, 8)
    loss = (net(x) - x.sum(-1, keepdim=True).sin()).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if watched.step(loss):  # a rule is broken
        break

watched.close()
print(f"loss {loss.item():.3f}, diverged: {watched.diverged}")
