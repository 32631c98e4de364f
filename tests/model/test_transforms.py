"""Each transform against its formula, written out."""

import math
from dataclasses import replace

import pytest
import torch
from model_helpers import site, small_model

from redline.errors import UserError
from redline.model.transforms import (
    Highway,
    Interpolate,
    LayerNorm,
    LayerScale,
    LearnedScale,
    Scale,
    SigmaReparam,
    SoftCap,
    SoftClip,
    UnitWeight,
)


def normalised(x, dims):
    mean = x.mean(dims, keepdim=True)
    variance = ((x - mean) ** 2).mean(dims, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5)


def randomised(module):
    """With a gain that is not 1, so that one left out or misplaced shows."""
    torch.nn.init.normal_(module.weight)
    return module


def test_layer_norm_over_the_width():
    x_BTD, norm = torch.randn(2, 5, 8) * 3 + 1, randomised(LayerNorm(site("attn_in")))
    torch.testing.assert_close(norm(x_BTD), normalised(x_BTD, -1) * norm.weight)


def test_layer_norm_over_each_head_shares_its_gain_between_heads():
    x_BHTK, norm = torch.randn(3, 2, 5, 4) * 3 + 1, randomised(LayerNorm(site("q"), span="head"))
    assert norm.weight.shape == (4,)
    torch.testing.assert_close(norm(x_BHTK), normalised(x_BHTK, -1) * norm.weight)


def test_layer_norm_over_all_heads_together():
    x_BHTK, norm = torch.randn(3, 2, 5, 4) * 3 + 1, randomised(LayerNorm(site("k"), span="full"))
    gain_H1K = norm.weight.view(2, 1, 4)
    torch.testing.assert_close(norm(x_BHTK), normalised(x_BHTK, (1, 3)) * gain_H1K)


def test_soft_cap():
    x, cap = torch.linspace(-40, 40, 33), SoftCap(site("score"), cap=10.0)
    up, down = torch.exp(x / 10), torch.exp(-x / 10)
    torch.testing.assert_close(cap(x), 10 * (up - down) / (up + down))
    assert cap(torch.tensor([1e9, -1e9])).tolist() == [10.0, -10.0]
    torch.testing.assert_close(cap(x / 1e4), x / 1e4)


def test_scale():
    assert Scale(site("score"), factor=0.5)(torch.tensor([-3.0, 8.0])).tolist() == [-1.5, 4.0]


def test_scale_by_width_head_and_layer():
    place = replace(site("attn_in", layer=2), width=64, num_heads=4)
    assert Scale(place, factor=3.0, width_power=0.5).factor == pytest.approx(24.0)
    assert Scale(place, factor=1.0, head_power=1.0).factor == pytest.approx(16.0)
    assert Scale(place, factor=1.0, layer_power=-0.5).factor == pytest.approx(3**-0.5)


@pytest.mark.parametrize(("name", "channels"), [("mlp_branch", 8), ("q", 8), ("fc1_out", 24), ("logits", 32)])
def test_a_learned_scale_is_a_vector_of_all_channels(name, channels):
    scale = randomised(LearnedScale(site(name), init=0.5, width_power=1.0, parameter_power=2.0))
    assert scale.weight.shape == (channels,)
    factor = scale.weight * 0.5 * 8 / 8**2
    if name == "q":
        x = torch.randn(3, 2, 5, 4)
        expected = torch.stack([x[:, head] * factor[4 * head : 4 * head + 4] for head in (0, 1)], 1)
    else:
        x = torch.randn(3, 5, channels)
        expected = x * factor
    torch.testing.assert_close(scale(x), expected)


@pytest.mark.parametrize("name", ["embed", "q", "logits"])
def test_one_learned_factor_for_a_site(name):
    scale = LearnedScale(site(name), init=1.0, width_power=0.5, parameter_power=0.5, per="site")
    assert [its.shape for its in scale.parameters()] == [()]
    assert scale.weight.item() == pytest.approx(8**0.5)
    assert scale(torch.ones(2, 3)).tolist() == [[pytest.approx(8**0.5)] * 3] * 2


def test_soft_clip():
    clip = SoftClip(site("prob"), zeta=1.03, gamma=-0.03)
    p = torch.tensor([0.0, 0.02, 0.5, 0.99, 1.0])
    torch.testing.assert_close(clip(p), torch.tensor([0.0, 0.0, 1.06 * 0.5 - 0.03, 1.0, 1.0]))
    torch.testing.assert_close(SoftClip(site("prob"), zeta=1.0, gamma=0.0)(p), p)


def test_layer_scale_multiplies_each_channel():
    x_BTD, scale = torch.randn(2, 5, 8), randomised(LayerScale(site("mlp_branch"), init=[[None, 0.1]]))
    expected = torch.stack([x_BTD[..., d] * scale.weight[d] for d in range(8)], -1)
    torch.testing.assert_close(scale(x_BTD), expected)


@pytest.mark.parametrize(
    ("depth", "init"), [(1, 0.1), (18, 0.1), (19, 1e-5), (24, 1e-5), (25, 1e-6), (40, 1e-6)]
)
def test_layer_scale_starts_smaller_in_a_deeper_model(composed, depth, init):
    model = small_model(composed("norm=layer_scale"), num_layers=depth)
    for block in model.blocks:
        for branch in (block.attn_branch, block.mlp_branch):
            torch.testing.assert_close(branch.weight, torch.full((16,), init))


@pytest.mark.parametrize("shape", [(6, 6), (12, 4), (4, 12)])
def test_sigma_reparam_starts_from_the_largest_singular_value(shape):
    weight = torch.randn(shape)
    reparam = SigmaReparam(site("linear", weight))
    torch.testing.assert_close(reparam.gamma.detach(), torch.linalg.svdvals(weight)[0])
    torch.testing.assert_close(reparam(weight), weight)


def test_sigma_reparam_takes_one_power_iteration_a_training_forward():
    torch.manual_seed(0)
    reparam = SigmaReparam(site("linear", torch.randn(7, 5)))
    weight, u = torch.randn(7, 5), reparam.u.clone()
    for _ in range(3):
        v = weight.T @ u
        v = v / math.sqrt((v**2).sum())
        u = weight @ v
        u = u / math.sqrt((u**2).sum())
        torch.testing.assert_close(reparam(weight), reparam.gamma * weight / (u @ weight @ v))
    before = reparam.u.clone()
    reparam.eval()
    reparam(weight)
    assert torch.equal(reparam.u, before)
    reparam.train()
    for _ in range(200):
        reparam(weight)
    torch.testing.assert_close(reparam(weight), reparam.gamma * weight / torch.linalg.svdvals(weight)[0])


def test_sigma_reparam_sends_gradients_to_gamma_and_weight():
    torch.manual_seed(0)
    weight, upstream = torch.randn(7, 5, requires_grad=True), torch.randn(7, 5)
    reparam = SigmaReparam(site("linear", weight))
    ours = torch.autograd.grad((reparam(weight) * upstream).sum(), [reparam.gamma, weight])
    gamma = reparam.gamma.detach().clone().requires_grad_()
    # At convergence d sigma / d W = u v', which is what the gradient of the SVD gives.
    exact = gamma * weight / torch.linalg.svdvals(weight)[0]
    for got, wanted in zip(ours, torch.autograd.grad((exact * upstream).sum(), [gamma, weight]), strict=True):
        assert wanted.abs().min() > 0
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_sigma_reparam_takes_sigma_in_fp32_under_autocast():
    weight = torch.randn(33, 17)
    reparam = SigmaReparam(site("linear", weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(reparam(weight), weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: LayerNorm(site("score")), "norm_strategy.score:"),
        (lambda: LayerNorm(site("linear")), "norm_strategy.linear:"),
        (lambda: LayerNorm(site("q")), "norm_strategy.q.span=None: allowed: head, full"),
        (lambda: LayerNorm(site("v"), span="width"), "norm_strategy.v.span=width: allowed: head, full"),
        (lambda: LayerNorm(site("attn_in"), span="head"), "norm_strategy.attn_in.span=head: allowed: full"),
        (lambda: SoftCap(site("linear"), cap=1.0), "norm_strategy.linear:"),
        (lambda: Scale(site("linear"), factor=1.0), "norm_strategy.linear:"),
        (lambda: SoftClip(site("q"), zeta=1.0, gamma=0.0), "norm_strategy.q:"),
        (lambda: LayerScale(site("k"), init=[[None, 1.0]]), "norm_strategy.k:"),
        (lambda: LayerScale(site("mlp_branch"), init=[[3, 1.0]]), "norm_strategy.mlp_branch.init:"),
        (lambda: SigmaReparam(site("final")), "norm_strategy.final:"),
        (lambda: UnitWeight(site("final")), "norm_strategy.final:"),
        (lambda: Highway(site("attn_in"), times=2.0, power=1.0), "norm_strategy.attn_in:"),
        (lambda: Interpolate(site("mlp_branch"), init=0.1), "norm_strategy.mlp_branch:"),
        (lambda: LearnedScale(site("score"), init=1.0), "norm_strategy.score:"),
        (lambda: LayerNorm(site("mlp_sum")), "norm_strategy.mlp_sum:"),
        (
            lambda: Scale(site("final", layer=None), 1.0, layer_power=1.0),
            "norm_strategy.final.layer_power=1.0",
        ),
    ],
)
def test_a_transform_that_cannot_act_somewhere_names_the_key(build, key):
    with pytest.raises(UserError) as error:
        build()
    assert str(error.value).startswith(key)
    assert "\n" not in str(error.value)
