"""Norms and root mean squares of activations and of their gradients, against sums written out here."""

import pytest
import torch
import torch.nn.functional as F
from monitor_helpers import LINEARS, B, D, T, batch, layered, read, small_model, step, twin

from redline.monitor import OutputGradNorm, OutputNorm

SITES = ["qkv", "q", "k", "v", "proj", "fc1", "fc2", "block_in", "residual"]


def written_out(model):
    """Block by block, without a hook: what passes at each site. And the loss, for gradients."""
    tokens_BS = batch(0)
    x = model.positions.embed(model.embedding(tokens_BS[:, :-1]))
    seen = {}
    for layer, block in enumerate(model.blocks):
        here = {"block_in": x}
        here["qkv"] = block.attention.qkv(block.attn_in(x))
        here["q"], here["k"], here["v"] = parts = here["qkv"].split(D, -1)
        q, k, v = (part.reshape(B, T, -1, D // 2).transpose(1, 2) for part in parts)
        q, k = block.attention.positions.rotate(q), block.attention.positions.rotate(k)
        weights = torch.softmax(q @ k.transpose(2, 3) / (D // 2) ** 0.5 + model.mask_TT, -1)
        here["proj"] = block.attention.proj((weights @ v).transpose(1, 2).reshape(B, T, D))
        x = x + here["proj"]
        here["fc1"] = block.mlp.fc1(block.mlp_in(x))
        here["fc2"] = block.mlp.fc2(F.gelu(here["fc1"]))
        x = x + here["fc2"]
        here["residual"] = x
        seen |= {f"{site}/layer_{layer:02d}": value for site, value in here.items()}
    logits = model.head(model.final(x))
    return seen, F.cross_entropy(logits.flatten(0, 1), tokens_BS[:, 1:].flatten())


def test_norm_and_rms_of_every_site():
    model = small_model()
    seen, _ = written_out(twin(model))
    got = read(model, OutputNorm(SITES, ["norm", "rms"]))
    assert set(got) == layered("norm", SITES) | layered("rms", SITES)
    for name, x in seen.items():
        assert got[f"norm/{name}"] == pytest.approx(x.square().sum(-1).sqrt().mean().item(), rel=1e-4)
        assert got[f"rms/{name}"] == pytest.approx(x.square().mean().sqrt().item(), rel=1e-4)


def test_only_what_was_asked_for_is_read():
    got = read(small_model(), OutputNorm(["v"], ["rms"]))
    assert set(got) == layered("rms", ["v"])


def test_gradients_of_outputs_before_clipping():
    model = small_model()
    seen, loss = written_out(twin(model))
    outputs = [*LINEARS, "q", "k", "v"]
    tap = OutputGradNorm(outputs)
    got = read(model, tap)
    assert set(got) == layered("output_grad_norm", outputs)
    names = [name for name in seen if name.split("/")[0] in outputs]
    for name, gradient in zip(names, torch.autograd.grad(loss, [seen[n] for n in names]), strict=True):
        expected = gradient.square().sum(-1).sqrt().mean().item()
        assert got[f"output_grad_norm/{name}"] == pytest.approx(expected, rel=1e-3)
    tap.values.clear()
    twice = twin(model)
    step(model, [tap])
    again = OutputGradNorm(outputs)
    again.attach(twice)  # beside the copied hooks, which are not active
    step(twice, [again])
    assert {n: v.item() for n, v in tap.values.items()} == {n: v.item() for n, v in again.values.items()}
