"""What acts inside attention: beside formulas written out, and Hugging Face's modules of the same weights."""

import math

import pytest
import torch
from model_helpers import random_tokens, site, small_model
from torch.nn.utils import parametrize

from redline.errors import UserError
from redline.model.norm_strategy import NormStrategy, Transform
from redline.model.transforms import LayerNorm, QKClip, SigmoidGate, SinkSoftmax, SoftCap, Softpick

B, T, D, H, K = 3, 7, 16, 2, 8
FUTURE_TT = torch.ones(T, T, dtype=torch.bool).triu(1)


def scores(size):
    """(B,H,T,T) of about ``size``, with the future masked."""
    drawn = torch.randn(B, H, T, T, generator=torch.Generator().manual_seed(0)) * size
    return drawn.masked_fill(FUTURE_TT, -math.inf)


def plain_softpick(score, eps):
    """In float64, where exp(700) is a number."""
    e = score.double().exp() - 1
    e = torch.where(score == -math.inf, 0.0, e)
    return e.clamp(min=0) / (e.abs().sum(-1, keepdim=True) + eps)


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 200.0])
@pytest.mark.parametrize("eps", [1e-8, 0.1])
def test_softpick_is_the_plain_formula_and_so_is_its_gradient(size, eps):
    ours, plain = scores(size).requires_grad_(), scores(size).requires_grad_()
    upstream = torch.randn(B, H, T, T)
    p, expected = Softpick(site("softmax"), eps)(ours), plain_softpick(plain, eps)
    torch.testing.assert_close(p.double(), expected, rtol=1e-3, atol=1e-6)
    (p * upstream).sum().backward()
    (expected * upstream).sum().backward()
    # Differences of numbers near 1 have few digits where scores are small.
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-3, atol=1e-3 / min(size, 1))


def test_softpick_neither_overflows_nor_divides_by_zero():
    score = torch.tensor([[1e4, 1e4, -1e4], [-1e4, -500.0, -math.inf], [0.0, 0.0, -math.inf]])
    score.requires_grad_()
    p = Softpick(site("softmax"), 1e-8)(score.expand(1, 1, 3, 3))[0, 0]
    assert p.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    p.sum().backward()
    assert score.grad.isfinite().all()


@pytest.mark.parametrize(
    "make", [lambda: Softpick(site("softmax"), 1e-8), lambda: SinkSoftmax(site("softmax"), 0.0)]
)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_a_number_is_not_hidden(make, bad):
    score = torch.zeros(1, H, 2, 2)
    score[0, 0, 1, 0] = bad
    assert make()(score)[0, 0, 1].isnan().any()
    assert make()(score)[0, 1].isfinite().all()


def test_the_learned_logit_is_one_more_in_the_softmax_and_takes_no_value():
    softmax = SinkSoftmax(site("softmax"), init=0.0)
    assert softmax.logit_H.tolist() == [0.0, 0.0]
    torch.nn.init.normal_(softmax.logit_H, std=3.0)
    score, upstream = scores(5.0), torch.randn(B, H, T, T)
    column_BHT1 = softmax.logit_H.view(1, H, 1, 1).expand(B, H, T, 1)
    expected = torch.softmax(torch.cat([score, column_BHT1], -1), -1)[..., :-1]
    torch.testing.assert_close(softmax(score), expected)
    gradients = [
        torch.autograd.grad((p * upstream).sum(), softmax.logit_H) for p in (softmax(score), expected)
    ]
    torch.testing.assert_close(*gradients)
    never = SinkSoftmax(site("softmax"), init=-100.0)
    torch.testing.assert_close(never(score), torch.softmax(score, -1))
    assert torch.equal(softmax(score - 1e4), torch.zeros_like(score))


def filled(linear, weight):
    assert linear.weight.shape == weight.shape
    linear.weight.data.copy_(weight.detach())


def test_the_learned_logit_is_that_of_gpt_oss(composed, peers):
    from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention

    attention, mask_TT = one_attention(composed("norm=sink"))
    torch.nn.init.normal_(attention.inner.softmax.logit_H, std=2.0)
    config = GptOssConfig(
        hidden_size=D, num_attention_heads=H, num_key_value_heads=H, head_dim=K, num_hidden_layers=2,
        attention_bias=False, attn_implementation="eager",
    )  # fmt: skip
    theirs = GptOssAttention(config, 1)
    q, k, v = attention.qkv.weight.split(D)
    for linear, weight in (("q", q), ("k", k), ("v", v), ("o", attention.proj.weight)):
        filled(getattr(theirs, f"{linear}_proj"), weight)
    theirs.sinks.data.copy_(attention.inner.softmax.logit_H.detach())
    unturned = torch.ones(1, T, K // 2), torch.zeros(1, T, K // 2)
    x_BTD = torch.randn(B, T, D)
    torch.testing.assert_close(attention(x_BTD, mask_TT), theirs(x_BTD, unturned, mask_TT[None, None])[0])


def one_attention(cfg):
    """Of a model without rotation: its first layer's attention, and the mask for T tokens."""
    model = small_model(cfg, positions="learned", init_std=0.5)
    return model.blocks[0].attention, model.mask_TT[:T, :T]


def test_the_gate_is_that_of_qwen3_next(composed, peers):
    from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextAttention

    attention, mask_TT = one_attention(composed("norm=gated"))
    config = Qwen3NextConfig(
        hidden_size=D, num_attention_heads=H, num_key_value_heads=H, head_dim=K, num_hidden_layers=2,
        attention_bias=False, attn_implementation="eager",
    )  # fmt: skip
    theirs = Qwen3NextAttention(config, 1)
    theirs.q_norm = theirs.k_norm = torch.nn.Identity()
    q, k, v = attention.qkv.weight.split(D)
    # Each head's rows of q are followed by those of its gate.
    q_and_gate = torch.stack([q.view(H, K, D), attention.gate.matrix.weight.view(H, K, D)], 1)
    for linear, weight in (
        ("q", q_and_gate.view(2 * D, D)),
        ("k", k),
        ("v", v),
        ("o", attention.proj.weight),
    ):
        filled(getattr(theirs, f"{linear}_proj"), weight)
    unturned = torch.ones(1, T, K), torch.zeros(1, T, K)
    x_BTD = torch.randn(B, T, D)
    torch.testing.assert_close(attention(x_BTD, mask_TT), theirs(x_BTD, unturned, mask_TT[None, None])[0])


def test_a_gate_for_each_head_multiplies_all_of_its_channels():
    gate = SigmoidGate(site("gate"), per="head")
    torch.nn.init.normal_(gate.matrix.weight)
    y_BTD, x_BTD = torch.randn(B, T, 8), torch.randn(B, T, 8)
    expected = torch.empty_like(y_BTD)
    for channel in range(8):
        logit_BT = x_BTD @ gate.matrix.weight[channel // 4]  # heads are of 4 channels
        expected[..., channel] = y_BTD[..., channel] / (1 + torch.exp(-logit_BT))
    torch.testing.assert_close(gate(y_BTD, x_BTD), expected)


@pytest.mark.parametrize("per", ["element", "head"])
def test_a_gates_matrix_is_drawn_as_the_models_others_and_changes_none_of_them(composed, per):
    cfg = composed("norm=gated", f"norm_strategy.gate.per={per}")
    gated, plain = (small_model(its, width=64, init_std=0.3) for its in (cfg, composed()))
    weights = dict(plain.named_parameters())
    for name, weight in gated.named_parameters():
        if "gate" in name:
            assert weight.std().item() == pytest.approx(0.3, rel=0.2)
        else:
            assert torch.equal(weight, weights[name]), name
    assert not torch.equal(*(block.attention.gate.matrix.weight for block in gated.blocks))


@pytest.mark.parametrize("transform", ["SigmaReparam", "UnitWeight"])
def test_what_acts_on_every_linears_weight_acts_on_the_gates(composed, transform):
    tokens, table = random_tokens(2, 8), f"{{_target_:redline.model.transforms.{transform}}}"
    gated = small_model(composed("norm=gated"), init_std=0.3)
    both = small_model(composed("norm=gated", f"norm_strategy.linear={table}"), init_std=0.3)
    matrix = both.blocks[1].attention.gate.matrix
    assert parametrize.is_parametrized(matrix, "weight")
    if transform == "SigmaReparam":
        torch.testing.assert_close(both(tokens), gated(tokens), rtol=1e-4, atol=1e-4)
    else:
        torch.testing.assert_close(matrix.weight.norm(dim=1), torch.ones(16))
    both(tokens).square().mean().backward()
    assert matrix.parametrizations.weight.original.grad.abs().max() > 0


def test_a_gate_reads_what_qkv_reads(composed):
    model = small_model(composed("norm=gated"), init_std=0.3)
    seen = {}
    attention = model.blocks[1].attention
    for name, part in (("qkv", attention.qkv), ("gate", attention.gate.matrix)):
        part.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
    model(random_tokens(2, 8))
    assert torch.equal(seen["qkv"], seen["gate"])


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda its: SinkSoftmax(its, 0.0), "score"),  # before the mask it would see the future
        (lambda its: Softpick(its, 1e-8), "prob"),
        (lambda its: SoftCap(its, 1.0), "softmax"),
        (lambda its: SigmoidGate(its, "head"), "attn_sum"),
        (lambda its: SoftCap(its, 1.0), "gate"),
        (lambda its: SoftCap(its, 1.0), "qk_weight"),
        (lambda its: QKClip(its, 1.0), "linear"),
    ],
)
def test_a_transform_at_a_wrong_site_is_refused(make, name):
    with pytest.raises(UserError, match=rf"^norm_strategy.{name}: \w+ cannot act here; allowed: "):
        make(site(name))


@pytest.mark.parametrize("name", ["softmax", "gate", "qk_weight", "mlp_sum"])
def test_where_one_transform_acts_no_second_may(name):
    transforms = {name: [Transform(lambda site: torch.nn.Identity())] * 2}
    with pytest.raises(UserError, match=f"norm_strategy.{name}.then: allowed: one transform in each layer"):
        NormStrategy(transforms, LayerNorm, 8, 2, 2, 32, 32).at(name)
