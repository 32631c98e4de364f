"""Taps on their modules, against hooks and products written out here."""

import math

import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES, MAPS, ONE_OF_EACH, H, small, tokens

from redline.model import named_parameters
from redline.monitor import MaxLogit, OutputGradNorm, OutputNorm, Step, WeightGradNorm, WeightNorm

SITES = ["qkv", "q", "k", "v", "proj", "fc1", "fc2", "block_in", "residual"]
MAPS_OF = {name: its for its in MAPS.values() for name in its.get("types", [])}


def read(model, taps):
    """One step that is read."""
    for tap in taps:
        tap.attach(model)
        tap.active = True
    given = tokens(3, 8)
    loss = F.cross_entropy(model(given[:, :-1]).flatten(0, 1), given[:, 1:].flatten())
    loss.backward()
    step = Step(0, 21, None)
    for tap in taps:
        with torch.no_grad():
            tap.before_update(step)
            tap.after_update(step)
    return {name: float(value) for tap in taps for name, value in tap.values.items()}


def apart(family, site, y):
    """q, k or v of the output of one linear for all three, written out."""
    its = MAPS_OF[family]
    number = "qkv".index(site)
    if its.get("by_head"):
        return y.view(*y.shape[:-1], H, 3, -1)[..., number, :].flatten(-2)
    heads = [H, 2, 2] if "num_key_value_heads" in FAMILIES[family] else [H, H, H]
    width = y.shape[-1] // sum(heads)
    start = sum(heads[:number]) * width
    return y[..., start : start + heads[number] * width]


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_output_norms_are_those_of_hooks_on_their_modules(composed, peers, family):
    model = small(composed, family, "norm=native").train()
    its, seen = MAPS_OF[family], {}
    block = model.network.get_submodule(its["blocks"])[1]
    paths = {name: [path] if isinstance(path, str) else path for name, path in its["linears"].items()}
    for name, several in paths.items():
        for path in several:
            block.get_submodule(path).register_forward_hook(
                lambda module, inputs, output, name=name: seen.setdefault(name, []).append(output.detach())
            )
    block.register_forward_pre_hook(lambda module, inputs: seen.update(block_in=[inputs[0].detach()]))
    block.register_forward_hook(lambda module, inputs, output: seen.update(residual=[output.detach()]))
    got = read(model, [OutputNorm(SITES, ["norm", "rms"])])
    if "qkv" in seen:
        seen |= {site: [apart(family, site, seen["qkv"][0])] for site in "qkv"}
    else:
        seen["qkv"] = [*seen["q"], *seen["k"], *seen["v"]]
    for site in SITES:
        x = torch.cat(seen[site], -1)
        assert got[f"norm/{site}/layer_01"] == pytest.approx(x.norm(dim=-1).mean().item(), rel=1e-4), site
        assert got[f"rms/{site}/layer_01"] == pytest.approx(x.square().mean().sqrt().item(), rel=1e-4), site


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3"])
def test_weights_and_their_gradients(composed, peers, family):
    model = small(composed, family, "norm=native").train()
    linears = ["qkv", "proj", "fc1", "fc2"]
    got = read(model, [WeightNorm(linears, ["norm"]), WeightGradNorm(linears), OutputGradNorm(linears)])
    for linear in linears:
        its = [w.parameter for w in named_parameters(model) if (w.linear, w.layer) == (linear, 1)]
        matrices = [w for w in its if w.ndim == 2]
        assert len(matrices) == len(model.site_map.layers[1].outputs[linear].linears)
        norm = math.sqrt(sum(w.square().sum().item() for w in matrices))
        gradient = math.sqrt(sum(w.grad.square().sum().item() for w in matrices))
        assert got[f"weight_norm/{linear}/layer_01"] == pytest.approx(norm, rel=1e-4)
        assert got[f"weight_grad_norm/{linear}/layer_01"] == pytest.approx(gradient, rel=1e-4)
        assert got[f"output_grad_norm/{linear}/layer_01"] > 0


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "mistral", "opt"])
def test_the_largest_logit_is_that_of_their_own_scores(composed, peers, monkeypatch, family):
    """Where keys are shared, q is scaled before, or a window ends what a query sees."""
    model = small(composed, family, "norm=native").train()
    got = read(model, [MaxLogit(10**6, 10**6, per_head=True)])
    seen = {}
    for layer, its in enumerate(model.site_map.layers):
        its.attention.score = _Listening(its.attention.score, seen, layer)
        its.attention.fusable = False
    model(tokens(3, 8)[:, :-1])
    tril = torch.ones(7, 7).tril()
    windows = [4, 0] if family == "gemma2" else [4, 4] if family == "mistral" else [0, 0]
    for layer, window in enumerate(windows):
        allowed = tril.triu(1 - window) if window else tril
        largest = seen[layer].masked_fill(allowed == 0, -math.inf).amax((0, 2, 3))
        for head, logit in enumerate(largest.tolist()):
            value = got[f"attention/max_logit/layer_{layer:02d}/head_{head:02d}"]
            assert value == pytest.approx(logit, rel=1e-4)


class _Listening(torch.nn.Module):
    def __init__(self, then, seen, layer):
        super().__init__()
        self.then, self.seen, self.layer = then, seen, layer

    def forward(self, score):
        self.seen[self.layer] = score.detach()
        return self.then(score)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3"])
def test_qk_clip_bounds_the_logits_of_every_layout(composed, peers, family):
    model = small(composed, family, "norm=qk_clip").train()
    model(tokens())
    layer = model.site_map.layers[0]
    largest_H = layer.qk_weight.largest_H.clone()
    tau = layer.qk_weight.tau = largest_H.median().item()
    clipped = layer.qk_weight.after_step(layer.key_heads, layer.scale_heads, torch.tensor(True))
    assert clipped.item() == (largest_H > tau).sum()
    model(tokens())
    expected = largest_H.clamp(max=tau)
    torch.testing.assert_close(layer.qk_weight.largest_H, expected, rtol=1e-4, atol=1e-6)
