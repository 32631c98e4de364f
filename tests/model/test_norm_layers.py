"""The norm layers: each against its formula written out, at any site, and what batch norm leaks."""

import math
from dataclasses import replace

import pytest
import torch
from model_helpers import NORM_LAYERS, random_tokens, site, small_model
from test_causality import sees_the_future

from redline.model.transforms import BatchNorm, Derf, DyT, LayerNorm, RMSNorm, UnitNorm


def randomised(module):
    """With values that are not those of the start, so that one left out or misplaced shows."""
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return module


def layer_norm(x, norm):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * norm.weight + norm.bias


def rms_norm(x, norm):
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-6) * norm.weight


def batch_norm(x, norm):
    tokens = x.reshape(-1, x.shape[-1])
    mean = tokens.sum(0) / len(tokens)
    return (x - mean) / torch.sqrt(((tokens - mean) ** 2).sum(0) / len(tokens) + 1e-5) * norm.weight


def tanh(x, norm):
    up, down = torch.exp(norm.alpha * x), torch.exp(-norm.alpha * x)
    return norm.weight * (up - down) / (up + down) + norm.bias


def erf(x, norm):
    """By its integral: Simpson's rule over 200 steps."""
    end = norm.alpha * x + norm.shift
    t = torch.linspace(0, 1, 201)
    simpson = torch.tensor([1.0, *[4.0, 2.0] * 99, 4.0, 1.0]) / 600
    values = torch.exp(-((end[..., None] * t) ** 2)) * simpson
    return norm.weight * (2 / math.sqrt(math.pi) * end * values.sum(-1)) + norm.bias


ALPHA = [[None, 0.7, 0.7]]
NORMS = {
    "layer_norm": (lambda *its: LayerNorm(*its, bias=True), layer_norm),
    "rms_norm": (RMSNorm, rms_norm),
    "batch_norm": (BatchNorm, batch_norm),
    "dyt": (lambda place, span=None: DyT(place, ALPHA, span), tanh),
    "derf": (lambda place, span=None: Derf(place, ALPHA, 0.3, span), erf),
    "unit": (UnitNorm, lambda x, norm: x / (x**2).sum(-1, keepdim=True).sqrt()),
}


@pytest.mark.parametrize("name", NORMS)
def test_over_the_width_over_a_head_and_over_all_heads(name):
    torch.manual_seed(0)
    build, formula = NORMS[name]
    norm = randomised(build(site("attn_in")))
    x_BTD = torch.randn(3, 5, 8) * 3 + 1
    torch.testing.assert_close(norm(x_BTD), formula(x_BTD, norm), rtol=1e-4, atol=1e-5)

    norm = randomised(build(site("q"), "head"))
    x_BHTK = torch.randn(3, 2, 5, 4) * 3 + 1
    assert all(its.numel() in (1, 4) for its in norm.parameters())
    torch.testing.assert_close(norm(x_BHTK), formula(x_BHTK, norm), rtol=1e-4, atol=1e-5)

    norm = randomised(build(site("k"), "full"))
    expected = formula(x_BHTK.transpose(1, 2).reshape(3, 5, 8), norm).view(3, 5, 2, 4).transpose(1, 2)
    torch.testing.assert_close(norm(x_BHTK), expected, rtol=1e-4, atol=1e-5)

    hidden_BTF = torch.randn(3, 5, 24)
    norm = randomised(build(site("fc2_in")))
    torch.testing.assert_close(norm(hidden_BTF), formula(hidden_BTF, norm), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [LayerNorm, RMSNorm, BatchNorm])
def test_without_a_learned_gain(build):
    x_BTD = torch.randn(2, 5, 8)
    plain = build(site("attn_in"), affine=False)
    assert not [*plain.parameters()]
    assert torch.equal(plain(x_BTD), build(site("attn_in"))(x_BTD))


@pytest.mark.parametrize("build", [LayerNorm, RMSNorm])
@pytest.mark.parametrize("autocast", [True, False])
def test_float32_computes_in_it_and_gives_the_inputs_dtype_back(build, autocast):
    x_BTD = (torch.randn(2, 5, 8) + 30).bfloat16()
    norm = randomised(build(site("attn_in"), dtype="float32"))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y_BTD = norm(x_BTD)
    assert y_BTD.dtype == torch.bfloat16
    assert torch.equal(y_BTD, norm(x_BTD.float()).bfloat16())


@pytest.mark.parametrize("norm_layer", NORM_LAYERS)
@pytest.mark.parametrize("norm", ["qk_fc", "olmo2", "sub_ln"])
def test_every_norm_layer_is_built_wherever_a_strategy_asks_for_the_runs_norm(composed, norm_layer, norm):
    cfg = composed(f"norm={norm}", f"norm_layer={norm_layer}")
    model = small_model(cfg, init_std=0.3)
    kind = cfg.norm_layer._target_.rpartition(".")[2] if cfg.norm_layer else "LayerNorm"
    norms = {type(its).__name__ for its in model.modules()} & {
        "LayerNorm",
        "RMSNorm",
        "BatchNorm",
        "DyT",
        "Derf",
    }
    assert norms == {kind}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(random_tokens(2, 8)).isfinite().all()
    model(random_tokens(2, 8)).square().mean().backward()
    assert all(its.grad is not None and its.grad.isfinite().all() for its in model.parameters())


def test_the_default_is_the_norm_that_it_was(composed):
    names = [name for name, _ in small_model(composed()).named_parameters() if "weight" in name]
    blocks = ["attn_in", "mlp_in", "attention.qkv", "attention.proj", "mlp.fc1", "mlp.fc2"]
    expected = {"embedding.weight", "final.weight", "head.weight"}
    assert {*names} == expected | {f"blocks.{layer}.{name}.weight" for layer in (0, 1) for name in blocks}


def test_dynamic_tanh_starts_by_width_and_by_whether_attention_follows(composed):
    starts = {512: (1.0, 1.0), 2048: (1.0, 0.5), 4096: (0.8, 0.2), 5120: (0.6, 0.15), 8192: (0.2, 0.05)}
    for width, wanted in starts.items():
        with torch.device("meta"):
            cfg = composed("norm=dyt")
            block = small_model(cfg, width=width, num_layers=1).blocks[0]
        assert block.attn_in.alpha.shape == ()
        start = [
            DyT(replace(site(name), width=width), cfg.norm_layer.alpha).alpha.item()
            for name in ("attn_in", "mlp_in")
        ]
        assert start == pytest.approx(wanted)
    derf = small_model(composed("norm=derf")).blocks[0].attn_in
    assert (derf.alpha.item(), derf.shift.item()) == (0.5, 0.0)


def test_batch_norm_keeps_running_statistics_as_torchs_does():
    ours, theirs = BatchNorm(site("attn_in")), torch.nn.BatchNorm1d(8)
    for _ in range(3):
        x_BTD = torch.randn(4, 5, 8) * 3 + 1
        torch.testing.assert_close(ours(x_BTD), theirs(x_BTD.flatten(0, 1)).view(4, 5, 8))
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x_BTD), theirs(x_BTD.flatten(0, 1)).view(4, 5, 8))


@pytest.mark.parametrize("norm", ["baseline", "qk"])
def test_batch_norm_leaks_the_future_in_training_and_not_in_evaluation(composed, norm):
    model = small_model(composed(f"norm={norm}", "norm_layer=batch_norm"), init_std=0.3)
    assert sees_the_future(model.train())
    assert not sees_the_future(model.eval())


@pytest.mark.parametrize("norm_layer", [name for name in NORM_LAYERS if name != "batch_norm"])
def test_no_other_norm_layer_leaks(composed, norm_layer):
    cfg = composed("norm=qk_fc", f"norm_layer={norm_layer}")
    assert not sees_the_future(small_model(cfg, init_std=0.3).train())
