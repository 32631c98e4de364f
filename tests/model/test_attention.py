"""The two attention paths compute one formula; which of them a strategy may take."""

import math

import pytest
import torch
from model_helpers import NORMS, random_tokens, small_model
from torch import nn

from redline.model.attention import explicit, fused
from redline.model.norm_strategy import Softmax


def naive(q_BHTK, k_BHTK, v_BHTK, scale):
    """Token by token, looking at nothing later."""
    out = torch.zeros_like(v_BHTK)
    for t in range(q_BHTK.shape[2]):
        score = (q_BHTK[:, :, t, None] * k_BHTK[:, :, : t + 1]).sum(-1) * scale
        weight = torch.exp(score - score.amax(-1, keepdim=True))
        weight = weight / weight.sum(-1, keepdim=True)
        out[:, :, t] = (weight[..., None] * v_BHTK[:, :, : t + 1]).sum(2)
    return out


def causal_mask(length):
    return torch.full((length, length), -math.inf).triu(1)


def run_explicit(q, k, v, scale, score=None, prob=None):
    transforms = (score or nn.Identity(), Softmax(), prob or nn.Identity())
    return explicit(q, k, v, scale, 0.0, causal_mask(q.shape[2]), *transforms)


PATHS = {
    "fused": lambda q, k, v, scale: fused(q, k, v, scale, 0.0),
    "explicit": run_explicit,
    # A score transform takes the explicit path's other branch.
    "explicit with a transform": lambda q, k, v, s: run_explicit(q, k, v, s, score=nn.Dropout(0.0)),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 3, 7, 4), (2, 2, 33, 16), (1, 4, 64, 8)])
@pytest.mark.parametrize("scale", [0.25, 1.7])
def test_each_path_gives_the_formula_and_its_gradients(path, shape, scale):
    torch.manual_seed(0)
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    upstream = torch.randn(shape)
    reference = naive(q, k, v, scale)
    ours = PATHS[path](q, k, v, scale)
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)
    wanted = torch.autograd.grad((reference * upstream).sum(), [q, k, v])
    for got, right in zip(torch.autograd.grad((ours * upstream).sum(), [q, k, v]), wanted, strict=True):
        torch.testing.assert_close(got, right, rtol=1e-3, atol=3e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_the_whole_model_is_the_same_on_both_paths(composed, norm):
    results = []
    for path in ("fused", "explicit"):
        model = small_model(composed(f"norm={norm}"), attention=path, init_std=0.3)
        logits = model(random_tokens(2, 8))
        logits.square().mean().backward()
        results.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("norm", "fusable"),
    [
        ("baseline", True), ("qkv", True), ("soft_temp", True), ("gated", True), ("qk_clip", True),
        ("soft_cap", False), ("soft_clip", False), ("sink", False), ("softpick", False),
    ],
)  # fmt: skip
def test_only_a_transform_of_scores_or_probabilities_leaves_the_fused_path(composed, norm, fusable):
    q_BHTK = torch.zeros(1, 2, 8, 8)
    for path in ("fused", "explicit"):
        for block in small_model(composed(f"norm={norm}"), attention=path).blocks:
            assert block.attention.inner.fusable == fusable
            assert block.attention.inner.takes_fused(q_BHTK) == (fusable and path == "fused")


def test_a_scale_of_the_scores_is_kept_when_it_is_folded(composed):
    class Half(nn.Module):
        def forward(self, x):
            return x * 0.5

    temp = small_model(composed("norm=soft_temp"), attention="fused", init_std=0.5)
    plain = small_model(composed("norm=baseline"), attention="explicit", init_std=0.5)
    tokens = random_tokens(2, 8)
    assert not torch.allclose(temp(tokens), plain(tokens), atol=1e-3)
    for block in plain.blocks:
        block.attention.inner.score, block.attention.inner.fusable = Half(), False
    torch.testing.assert_close(temp(tokens), plain(tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", ["fused", "explicit"])
def test_dropout_acts_in_training_only(composed, path):
    model, tokens = small_model(composed(), attention=path, dropout=0.5, init_std=0.3), random_tokens(2, 8)
    attention, x_BTD = model.blocks[0].attention, torch.randn(2, 8, 16)
    assert not torch.equal(attention(x_BTD, model.mask_TT), attention(x_BTD, model.mask_TT))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize("norm", NORMS)
def test_both_paths_in_bf16_stay_near_fp32(composed, norm):
    tokens = random_tokens(2, 8)
    reference = small_model(composed(f"norm={norm}"), init_std=0.3)(tokens)
    for path in ("fused", "explicit"):
        model = small_model(composed(f"norm={norm}"), init_std=0.3, attention=path)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            error = model(tokens).float() - reference
        assert error.std() < 0.03 * reference.std()
